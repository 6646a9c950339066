# SPDX-License-Identifier: MIT
"""Regions whose memory is mapped by other processes, written in Python, too: they write when the test asks them to."""
import errno
import gc
import os
import socket
import subprocess
import sys
import unittest

import numpy as np
import uffdwp
from support import LENGTH, SECONDS, Case, has_views

# Makes a userfaultfd, maps the memfd, passes the first and its address; then it fills the bytes of its own, every second
# one, with each value that it is asked to.
MAPPER = """
import ctypes, mmap, os, platform, socket, struct, sys
channel, memory, number = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
uffd = libc.syscall({"x86_64": 323, "aarch64": 282}[platform.machine()], os.O_CLOEXEC)
api = ctypes.create_string_buffer(struct.pack("QQQ", 0xaa, 1 << 0 | 1 << 12, 0), 24)  # write protection, of memfds too
if uffd < 0 or libc.ioctl(uffd, ctypes.c_ulong(0xc018aa3f), api) != 0:
    channel.sendall(struct.pack("Qi", 0, ctypes.get_errno()))
    channel.close()
    sys.exit()
memory = mmap.mmap(memory, 0)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
socket.send_fds(channel, [struct.pack("Qi", address, 0)], [uffd])
while True:
    value = channel.recv(1)
    if not value:
        break
    memory[number::2] = value * (len(memory) // 2)
    channel.sendall(value)
channel.close()
"""


class Mapper:
    """A process that maps a memfd."""

    def __init__(self, memory, number):
        self._channel, other = socket.socketpair()
        self._channel.settimeout(SECONDS)
        with other:
            self.process = subprocess.Popen([sys.executable, "-c", MAPPER, str(other.fileno()), str(memory), str(number)],
                                            pass_fds=(other.fileno(), memory))
        data, fds, _, _ = socket.recv_fds(self._channel, 12, 1)
        self.address = int.from_bytes(data[:8], sys.byteorder)
        self.error = int.from_bytes(data[8:], sys.byteorder)
        self.uffd = fds[0] if fds else -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def described(self):
        return dict(uffd=self.uffd, mappings=[(self.address, 0, LENGTH)])

    def write(self, value):
        """Has it fill its bytes; they are written when this returns."""
        self._channel.sendall(bytes([value]))
        if self._channel.recv(1) != bytes([value]):
            raise AssertionError("the mapper ended")

    def close_uffd(self):
        if self.uffd >= 0:
            os.close(self.uffd)
        self.uffd = -1

    def end(self):
        self.close_uffd()
        self._channel.close()
        return self.process.wait(SECONDS)


class Adopted(Case):
    def setUp(self):
        super().setUp()
        self.memory = os.memfd_create("adopted")
        self.addCleanup(os.close, self.memory)
        os.truncate(self.memory, LENGTH)
        self.mappers = []
        for number in range(2):
            self.mappers.append(Mapper(self.memory, number))
            self.addCleanup(self.mappers[-1].end)
            if self.mappers[-1].uffd < 0:
                self.runtime.close()
                self.skipTest("no userfaultfd for shared memory: " + os.strerror(self.mappers[-1].error))

    def adopt(self):
        first, second = self.mappers
        region = self.runtime.region_adopt(LENGTH, first.described(), fd=self.memory)
        region.join(second.described())
        for mapper in self.mappers:
            mapper.close_uffd()  # the library has duplicates
        return region

    def test_images_and_views_are_the_memory_of_both_processes_at_the_cut(self):
        first, second = self.mappers
        first.write(1)
        region = self.adopt()
        second.write(2)
        expected = np.tile(np.array([1, 2], dtype=np.uint8), LENGTH // 2)
        with region.snapshot_begin(self.path("image")):
            second.write(4)
            first.write(3)
        self.assertTrue((np.fromfile(self.path("image"), dtype=np.uint8) == expected).all())
        expected = np.tile(np.array([3, 4], dtype=np.uint8), LENGTH // 2)
        self.assertTrue((np.frombuffer(region.buffer, dtype=np.uint8) == expected).all())
        if has_views():
            with region.view_open() as view:
                first.write(5)
                self.assertTrue((np.frombuffer(view.buffer, dtype=np.uint8) == expected).all())
        gc.collect()
        region.close()
        first.write(6)
        self.assertEqual([mapper.end() for mapper in self.mappers], [0, 0])

    def test_increments_hold_what_each_process_wrote(self):
        region = self.adopt()
        with region.snapshot_begin(self.path("raw"), flags=uffdwp.SNAPSHOT_KEEP):
            pass
        for turn, mapper in enumerate(self.mappers):
            mapper.write(7 + turn)
            with region.snapshot_begin(self.path("delta%d" % turn), parent=self.path("delta0" if turn else "raw"),
                                       flags=uffdwp.SNAPSHOT_KEEP):
                pass
        with uffdwp.image_open(self.path("delta1")) as image:
            self.assertEqual(image.read(0, LENGTH), bytes([7, 8]) * (LENGTH // 2))
        with uffdwp.image_open(self.path("delta0")) as image:
            self.assertEqual(image.read(0, LENGTH), bytes([7, 0]) * (LENGTH // 2))
        with Mapper(self.memory, 0) as third:  # not while anything is armed
            with self.assertRaises(uffdwp.Error) as caught:
                region.join(third.described())
            self.assertEqual(caught.exception.errno, errno.EBUSY)
            region.disarm(0, LENGTH)
            region.join(third.described())
        region.close()

    def test_mistakes_say_what_was_wrong(self):
        first = self.mappers[0]
        with self.assertRaisesRegex(uffdwp.Error, "no userfaultfd"):
            self.runtime.region_adopt(LENGTH, first.described() | dict(uffd=self.memory), fd=self.memory)
        with self.assertRaisesRegex(uffdwp.Error, "mapping_count is 0"):
            self.runtime.region_adopt(LENGTH, dict(uffd=first.uffd), fd=self.memory)
        with self.assertRaisesRegex(TypeError, "no option 'pid'"):
            self.runtime.region_adopt(LENGTH, first.described() | dict(pid=1), fd=self.memory)
        with self.assertRaisesRegex(TypeError, "mapping_count"):
            self.runtime.region_adopt(LENGTH, first.described() | dict(mapping_count=1), fd=self.memory)
        with self.runtime.region_create(LENGTH) as region:
            with self.assertRaisesRegex(uffdwp.Error, "only adopted regions"):
                region.join(first.described())


if __name__ == "__main__":
    unittest.main()
