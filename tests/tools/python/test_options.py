# SPDX-License-Identifier: MIT
"""Options as README.md and the docstrings explain them: the control socket, window_max, first; progress; extents."""
import array
import contextlib
import json
import os
import re
import socket
import time
import unittest

import numpy as np
import uffdwp
from support import LENGTH, PAGE, Case, has_views, program, works


def ask(path, request):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(json.dumps(dict(request, v=1)).encode() + b"\n")
        with connection.makefile("rb") as lines:
            return json.loads(lines.readline())


class Control(Case):
    def setUp(self):
        super().setUp()
        if not uffdwp.built() & uffdwp.BUILT_CONTROL:
            self.skipTest("the library was built without json-c")

    def test_socket_lies_where_it_was_asked_for_and_allows_what_was(self):
        path = self.path("control.sock")
        with uffdwp.open(flags=uffdwp.OPEN_CONTROL, control=uffdwp.CONTROL_LOOK, control_path=path) as runtime:
            region = runtime.region_create(LENGTH)
            hello = ask(path, {"do": "hello"})
            self.assertEqual((hello["pid"], hello["allowed"]), (os.getpid(), ["look"]))
            answer = ask(path, {"do": "snapshot", "region": 1, "path": self.path("image")})
            self.assertEqual((answer["ok"], answer["error"]), (False, "EPERM"))
            region.close()
        self.assertFalse(os.path.exists(path))

    def test_snapshots_are_allowed_by_default(self):
        path = self.path("control.sock")
        with uffdwp.open(flags=uffdwp.OPEN_CONTROL, control_path=os.fsencode(path)):
            self.assertEqual(ask(path, {"do": "hello"})["allowed"], ["look", "snapshot"])


class First(Case):
    def setUp(self):
        super().setUp()
        np.arange(LENGTH // 8, dtype=np.uint64).tofile(self.path("image"))

    @contextlib.contextmanager
    def restored(self, first):
        with self.runtime.region_create(LENGTH, mechanism=uffdwp.MECHANISM_REARM) as region:
            restore = region.restore_begin(self.path("image"), flags=uffdwp.RESTORE_BEGIN_ON_DEMAND, first=first)
            try:
                yield restore
            finally:
                restore.close()

    @unittest.skipUnless(works("rearm"), "mechanism rearm does not work here")
    def test_offsets_are_bytes_in_a_list_or_an_array_of_8_byte_integers(self):
        offsets = [1 << 20, 0]
        for first in (offsets, tuple(offsets), np.array(offsets, dtype=np.uint64), np.array(offsets), array.array("Q", offsets),
                      iter(offsets)):
            with self.subTest(type(first)), self.restored(first) as restore:
                while restore.poll().pages_done < 2 * (64 << 10) // PAGE:  # they come without an access
                    time.sleep(0.001)
                self.assertEqual(restore.poll().pages_demand, 0)
                restore.check(1 << 20, PAGE)
                restore.check(0, PAGE)

    @unittest.skipUnless(works("rearm"), "mechanism rearm does not work here")
    def test_what_is_no_offset_is_refused(self):
        for wrong in (b"\0\0\0\0\0\0\x10\0", bytearray(8), np.zeros(2, dtype=np.uint32), "0", [0.5], np.zeros(1)):
            with self.subTest(wrong), self.assertRaises(TypeError), self.restored(wrong):
                pass
        with self.assertRaises(ValueError), self.restored([-1]):
            pass
        with self.assertRaises(uffdwp.Error), self.restored([LENGTH]):
            pass


class Forks(Case):
    @unittest.skipUnless(has_views(), "no mechanism that forks works here")
    def test_window_max_of_a_fork(self):
        for window in (0, 1, 64):
            text = """
                import os
                import sys
                import uffdwp
                with uffdwp.open() as runtime:
                    region = runtime.region_create(4 << 20)
                    pid = runtime.fork(window_max=int(sys.argv[1]))
                    if pid == 0:
                        os._exit(0)
                    print(os.waitpid(pid, 0)[1])
                    region.close()
            """
            self.assertEqual(program(text, str(window)), "0\n")
        with self.runtime.region_create(LENGTH), self.assertRaisesRegex(uffdwp.Error, "window_max"):
            self.runtime.fork(window_max=65)


class Images(Case):
    def test_progress_of_a_restore_is_called_and_may_end_it(self):
        np.arange(LENGTH // 8, dtype=np.uint64).tofile(self.path("image"))
        seen = []

        def refuse(done, total):
            raise KeyError("enough")

        with self.runtime.region_create(LENGTH) as region:
            region.restore(self.path("image"), progress=lambda done, total: seen.append((done, total)))
            self.assertEqual(seen[-1], (LENGTH, LENGTH))
            with self.assertRaises(KeyError):
                region.restore(self.path("image"), progress=refuse)

    def test_extents_are_all_of_the_image(self):
        with open(self.path("image"), "wb") as file:
            file.write(b"x" * PAGE)
            file.truncate(LENGTH)
        with uffdwp.image_open(self.path("image")) as image:
            extents = list(image.extents())
            self.assertEqual(extents[0].kind, uffdwp.EXTENT_DATA)
            self.assertEqual(os.pread(extents[0].fd, PAGE, extents[0].file_offset), b"x" * PAGE)
            at = 0
            for extent in extents:
                self.assertEqual(extent.offset, at)
                at += extent.length
            self.assertEqual(at, LENGTH)


class Manual(Case):
    @unittest.skipUnless(works("rearm"), "mechanism rearm does not work here")
    def test_options_example_of_the_readme_runs(self):
        source = os.environ.get("UFFDWP_SOURCE", "")
        if not os.path.exists(os.path.join(source, "tools", "python", "README.md")):
            self.skipTest("no sources")
        with open(os.path.join(source, "tools", "python", "README.md"), encoding="utf-8") as file:
            section = file.read().split("## Options, their types and units", 1)[1]
        example = re.search(r"```python\n(.*?)```", section, re.S).group(1)
        program("import os\nos.chdir(%r)\n%s" % (self.folder, example))


if __name__ == "__main__":
    unittest.main()
