# SPDX-License-Identifier: MIT
"""Snapshots, increments, restore, views and tracks of numpy arrays."""
import errno
import mmap
import os
import select
import threading
import unittest

import numpy as np
import uffdwp
from support import LENGTH, PAGE, SECONDS, Case, has_views, program, works


class Writers:
    """Threads that add 1 to elements of an array, by numpy, under a lock, until the end of a block."""

    def __init__(self, array, lock, count=2):
        self.lock = lock
        self._array = array
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(seed,)) for seed in range(count)]

    def _write(self, seed):
        chance = np.random.default_rng(seed)
        while not self._stop.is_set():
            where = chance.integers(0, len(self._array), 200)
            with self.lock:
                self._array[where] += 1
                self._array[-1 - len(where):] += 1  # what numpy does without the interpreter's lock

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


class CopyingLock:
    """A lock that keeps what an array is when it is taken at the cut."""

    def __init__(self, lock, array):
        self.copy = None
        self._lock = lock
        self._array = array

    def acquire(self):
        self._lock.acquire()
        self.copy = self._array.copy()

    def release(self):
        self._lock.release()


class Snapshots(Case):
    def filled(self, **options):
        region = self.runtime.region_create(LENGTH, **options)
        array = np.frombuffer(region.buffer, dtype=np.uint64)
        array[:] = np.arange(len(array))
        return region, array

    def test_image_is_the_array_at_the_cut_while_threads_write(self):
        region, array = self.filled()
        lock = threading.Lock()
        with Writers(array, lock) as writers:
            for turn in range(5):
                boundary = CopyingLock(lock, array)
                with region.snapshot_begin(self.path("image"), lock=boundary):
                    pass
                image = np.fromfile(self.path("image"), dtype=np.uint64)
                self.assertTrue((image == boundary.copy).all())
        self.assertFalse((image == array).all())
        del array, boundary, writers
        region.close()

    def read_into_an_armed_page(self, region):
        region.arm(0, PAGE)
        with open(self.path("input"), "rb", buffering=0) as file:
            return file.readinto(region.buffer[:PAGE])

    def test_system_calls_that_write_wait_by_thread_and_fail_inline(self):
        with open(self.path("input"), "wb") as file:
            file.write(b"x" * PAGE)
        user_mode = uffdwp.doctor()["system"]["access_chosen"] == uffdwp.ACCESS_USER_MODE
        for delivery, name in ((uffdwp.DELIVERY_THREAD, "thread"), (uffdwp.DELIVERY_INLINE, "inline")):
            if not works("marker", name):
                continue
            with self.subTest(delivery=name):
                region, array = self.filled(delivery=delivery, mechanism=uffdwp.MECHANISM_MARKER)
                if name == "inline" or user_mode:
                    with self.assertRaises(OSError) as caught:
                        self.read_into_an_armed_page(region)
                    self.assertEqual(caught.exception.errno, errno.EFAULT)
                    region.prepare_write(0, PAGE)
                    region.buffer[:PAGE] = b"x" * PAGE
                else:
                    self.assertEqual(self.read_into_an_armed_page(region), PAGE)
                region.arm(0, LENGTH)
                array[PAGE // 8:] = 1  # numpy's own writes are resolved by both
                self.assertEqual(bytes(region.buffer[:PAGE]), b"x" * PAGE)
                self.assertGreater(region.stats().faults, LENGTH // PAGE // 64)
                del array
                region.close()

    def test_increments_are_a_chain_whose_links_are_restored(self):
        region, array = self.filled(mechanism=uffdwp.MECHANISM_AUTO)
        copies = []
        for link in range(3):
            array[link * 1000] = 12345
            copies.append(array.copy())
            parent = self.path(str(link - 1)) if link else None
            try:
                with region.snapshot_begin(self.path(str(link)), parent=parent, flags=uffdwp.SNAPSHOT_KEEP):
                    pass
            except uffdwp.Error as error:
                self.assertEqual(error.errno, errno.EOPNOTSUPP)
                del array
                region.close()
                self.skipTest(error.strerror)
        self.assertLess(os.stat(self.path("2")).st_size, LENGTH // 4)
        with uffdwp.image_open(self.path("2")) as image:
            self.assertEqual(image.info().links, 3)
            reported = []
            image.progress(lambda done, total: reported.append((done, total)))
            image.verify()
            self.assertEqual(reported[-1], (sum(os.stat(self.path(str(link))).st_size for link in range(3)),) * 2)
            image.progress(None)
            self.assertEqual(image.read(8000, 8), (12345).to_bytes(8, "little"))
            with uffdwp.image_open(self.path("1")) as before:
                self.assertEqual(before.diff(image), [(16000 // PAGE * PAGE, PAGE)])
        for link in (1, 0, 2):
            array[:] = 0
            self.assertEqual(region.restore(self.path(str(link))).length_bytes, LENGTH)
            self.assertTrue((array == copies[link]).all())
        del array
        region.close()

    def test_callback_gets_each_page_once(self):
        region, array = self.filled()
        before = array.tobytes()
        image = bytearray(LENGTH)
        seen = set()

        def take(offset, data):
            self.assertFalse(seen & set(range(offset, offset + len(data), PAGE)))
            seen.update(range(offset, offset + len(data), PAGE))
            image[offset:offset + len(data)] = data

        with region.snapshot_begin(callback=take, pool_bytes=2 * LENGTH):
            array[:] = 0
        self.assertEqual(image, before)
        del array
        region.close()

    def test_exception_of_a_callback_is_raised_by_the_wait(self):
        region, array = self.filled()

        def take(offset, data):
            raise KeyError("of the callback")

        with self.assertRaises(KeyError):
            with region.snapshot_begin(callback=take):
                pass
        with self.assertRaises(ValueError):
            region.snapshot_begin(callback=take, policy=uffdwp.POLICY_WAIT)
        del array
        region.close()

    def test_exception_of_a_lock_is_raised_by_the_begin(self):
        region, array = self.filled()

        class Broken:
            def acquire(self):
                raise KeyError("of the lock")

        with self.assertRaises(KeyError):
            region.snapshot_begin(self.path("image"), lock=Broken())
        del array
        region.close()

    def test_stream_and_a_poll_beside(self):
        region, array = self.filled()
        before = array.tobytes()
        with open(self.path("stream"), "wb") as file, region.snapshot_begin(fd=file.fileno()) as shot:
            array[:] = 0
            poll = select.poll()
            poll.register(shot, select.POLLIN)
            self.assertEqual(len(poll.poll(SECONDS * 1000)), 1)
            self.assertEqual(shot.poll().state, uffdwp.SNAPSHOT_STATE_COMMITTED)
        with open(self.path("stream"), "rb") as file:
            self.assertEqual(file.read(), before)
        del array
        region.close()

    def test_group_has_one_cut(self):
        first, one = self.filled()
        second, two = self.filled()
        shots = uffdwp.snapshot_begin_group([(first, {"path": self.path("1")}), (second, {"path": self.path("2")})])
        one[:] = two[:] = 0
        for shot in shots:
            shot.wait()
            shot.free()
        expected = np.arange(LENGTH // 8)
        self.assertTrue((np.fromfile(self.path("1"), np.uint64) == expected).all())
        self.assertTrue((np.fromfile(self.path("2"), np.uint64) == expected).all())
        del one, two
        first.close()
        second.close()

    def test_wait_with_a_timeout_and_an_abort(self):
        region, array = self.filled()
        with region.snapshot_begin(self.path("slow"), rate_bytes=1 << 16) as shot:
            with self.assertRaises(TimeoutError):
                shot.wait(0.01)
            shot.abort()
            with self.assertRaises(uffdwp.Error) as caught:
                shot.wait()
            self.assertEqual(caught.exception.errno, errno.ECANCELED)
            shot.free()
        self.assertFalse(os.path.exists(self.path("slow")))
        del array
        region.close()

    @unittest.skipUnless(works("rearm"), "mechanism rearm does not work here")
    def test_another_process_restores_lazily(self):
        region, array = self.filled()
        with region.snapshot_begin(self.path("image")):
            array[:] = 0
        del array
        region.close()
        text = """
            import os
            import sys
            import numpy as np
            import uffdwp
            with uffdwp.open() as runtime:
                region = runtime.region_create(int(sys.argv[2]), mechanism=uffdwp.MECHANISM_REARM)
                array = np.frombuffer(region.buffer, dtype=np.uint64)
                with region.restore_begin(sys.argv[1], flags=uffdwp.RESTORE_BEGIN_ON_DEMAND, first=[0],
                                          touches_max=100) as restore:
                    assert array[77777] == 77777
                    page = os.sysconf("SC_PAGESIZE")
                    assert restore.touched() == [77777 * 8 // page * page], restore.touched()
                    restore.check(0, 4096)
                    progress = restore.poll()
                    assert 0 < progress.pages_done < progress.pages_total, progress
                    assert (array == np.arange(len(array))).all()
                    print(restore.wait().pages_done)
                del array
                region.close()
        """
        self.assertEqual(int(program(text, self.path("image"), str(LENGTH))), LENGTH // PAGE)


class Views(Case):
    @unittest.skipUnless(has_views(), "no mechanism with views works here")
    def test_view_is_one_instant_while_threads_write(self):
        region = self.runtime.region_create(LENGTH)
        array = np.frombuffer(region.buffer, dtype=np.uint64)
        boundary = CopyingLock(threading.Lock(), array)
        with Writers(array, boundary._lock):
            view = region.view_open(lock=boundary)
            seen = np.frombuffer(view.buffer, dtype=np.uint64)
            for turn in range(20):
                self.assertTrue((seen == boundary.copy).all())
        with self.assertRaises(ValueError):
            seen[0] = 1
        with self.assertRaises(BufferError):
            view.close()
        del seen
        view.close()
        del array, boundary
        region.close()


class Tracks(Case):
    def test_written_pages_of_an_mmap_object(self):
        memory = mmap.mmap(-1, LENGTH)
        array = np.frombuffer(memory, dtype=np.uint64)
        array[:] = 1
        with self.runtime.track_start() as track:
            track.add(memory, flags=uffdwp.TRACK_ADD_CLEAN)
            base = array.ctypes.data
            self.assertEqual(track.collect(), [])
            pages = list(range(0, LENGTH // PAGE, 2))[:700]  # more ranges than one call answers
            for page in pages:
                array[page * PAGE // 8] = 2
            with self.assertRaises(BufferError):
                memory.close()
            found = track.collect()
            self.assertEqual([((start - base) // PAGE, (end - base) // PAGE) for start, end in found],
                             [(page, page + 1) for page in pages])
            self.assertEqual(track.collect(), [])
        del array
        memory.close()


if __name__ == "__main__":
    unittest.main()
