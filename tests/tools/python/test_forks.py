# SPDX-License-Identifier: MIT
"""Runtime.fork(), and forks of others beside a runtime."""
import errno
import multiprocessing
import os
import threading
import time
import unittest

import numpy as np
import uffdwp
from support import LENGTH, SECONDS, Case, has_views, program

CHILDREN = 100

CAN_FORK = uffdwp.doctor()["child"]["works"] and has_views()
needs_children = unittest.skipUnless(CAN_FORK, "no mechanism with children works here, or no pages can be broken off one")


def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Forks(Case):
    def setUp(self):
        super().setUp()
        self.region = self.runtime.region_create(LENGTH)
        self.array = np.frombuffer(self.region.buffer, dtype=np.uint64)

    def tearDown(self):
        del self.array
        self.region.close()
        super().tearDown()

    @needs_children
    def test_child_has_the_array_as_of_the_call(self):
        self.array[:] = 1
        gate = os.pipe()
        pid, child = self.runtime.fork(want_child=True)
        if pid == 0:
            os.read(gate[0], 1)  # the parent has written by then
            right = (self.array == 1).all()
            self.array[:] = 3  # the child's own
            os._exit(0 if right and (self.array == 3).all() and child is None else 1)
        self.array[:] = 2
        os.write(gate[1], b"x")
        self.assertEqual(end(pid), 0)
        self.assertTrue((self.array == 2).all())
        self.assertEqual(child.info().pid, pid)
        self.assertEqual(child.info().private_bytes, LENGTH)
        child.free()
        for fd in gate:
            os.close(fd)

    @needs_children
    def test_hooks_run_as_with_os_fork(self):
        text = """
            import os, sys
            import uffdwp
            order = []
            for name in "ab":
                os.register_at_fork(before=lambda name=name: order.append("before " + name),
                                    after_in_parent=lambda name=name: order.append("parent " + name),
                                    after_in_child=lambda name=name: order.append("child " + name))
            def fork_by(call):
                order.clear()
                reader, writer = os.pipe()
                pid = call()
                if pid == 0:
                    os.write(writer, repr(order).encode())
                    os._exit(0)
                os.waitpid(pid, 0)
                return list(order), eval(os.read(reader, 1000))
            with uffdwp.open() as runtime, runtime.region_create(1 << 20):
                seen = [fork_by(os.fork), fork_by(runtime.fork)]
            assert seen[0] == seen[1], seen
            assert seen[0] == (["before b", "before a", "parent a", "parent b"],
                               ["before b", "before a", "child a", "child b"]), seen
        """
        program(text)

    @needs_children
    def test_children_of_a_program_of_busy_threads_run_python(self):
        """Other threads ask for the interpreter's lock all the time: a child that passed it on would hang."""
        stop = threading.Event()

        def spin():
            while not stop.is_set():
                sum(range(1000))

        threads = [threading.Thread(target=spin) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(CHILDREN):
                self.array[:1000] = turn
                pid = self.runtime.fork()
                if pid == 0:
                    os._exit(self.work_of_a_child(turn))
                self.array[:1000] = turn + 1000
                self.assertEqual(self.end_in_time(pid), 0)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def work_of_a_child(self, turn):
        done = []
        thread = threading.Thread(target=lambda: done.append((self.array[:1000] == turn).all()))
        thread.start()
        thread.join()
        time.sleep(0)  # gives the interpreter's lock away, and takes it
        return 0 if done == [True] and threading.active_count() == 1 else 1

    def end_in_time(self, pid):
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        return "it hangs"

    def test_refusals_leave_the_program_as_it_was(self):
        with uffdwp.open() as empty:
            with self.assertRaises(uffdwp.Error) as caught:
                empty.fork()
            self.assertEqual(caught.exception.errno, errno.ENOENT)
        with self.assertRaises(TypeError):
            self.runtime.fork(cut_center=None)
        threading.Thread(target=int).start()  # would hang if the hooks after the fork had not run
        __import__("colorsys")  # the lock of imports is free again

    def test_multiprocessing_beside_a_runtime(self):
        self.array[:] = 5
        for method in ("fork", "spawn"):
            with self.subTest(method=method):
                context = multiprocessing.get_context(method)
                shot = self.region.snapshot_begin(self.path(method))
                with context.Pool(2) as pool:
                    self.assertEqual(pool.map(abs, range(-50, 0)), list(range(50, 0, -1)))
                    self.array[:] = 6
                    self.assertEqual(pool.map(abs, range(-50, 0)), list(range(50, 0, -1)))
                shot.wait()
                shot.free()
                self.array[:] = 5
                self.assertTrue((np.fromfile(self.path(method), np.uint64) == 5).all())

    def test_handles_of_the_parent_are_refused_in_a_child_of_os_fork(self):
        pid = os.fork()
        if pid == 0:
            try:
                self.region.arm(0, LENGTH)
                os._exit(1)
            except uffdwp.Error as error:
                os._exit(0 if error.errno == errno.ECHILD else 2)
        self.assertEqual(end(pid), 0)


if __name__ == "__main__":
    unittest.main()
