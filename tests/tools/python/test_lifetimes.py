# SPDX-License-Identifier: MIT
"""What keeps what: buffers, garbage, the interpreter's exit; errors; and that layouts are the compiler's."""
import errno
import gc
import mmap
import os
import pickle
import re
import shutil
import subprocess
import sys
import unittest

import numpy as np
import uffdwp
from support import LENGTH, Case, has_views, program
from uffdwp import _interface, _library


class Buffers(Case):
    def test_close_is_refused_while_anything_uses_the_memory(self):
        users = {
            "memoryview": lambda region: region.buffer,
            "slice": lambda region: region.buffer[100:200],
            "slice of a slice": lambda region: memoryview(region.buffer[100:200])[5:6],
            "array": lambda region: np.frombuffer(region.buffer, dtype=np.uint8),
            "array of a slice": lambda region: np.frombuffer(region.buffer[8:80], dtype=np.uint64)[3:5],
            "reshaped array": lambda region: np.frombuffer(region.buffer, dtype=np.uint8).reshape(2, -1).T,
        }
        for name, use in users.items():
            with self.subTest(name):
                region = self.runtime.region_create(LENGTH)
                user = use(region)
                with self.assertRaises(BufferError):
                    region.close()
                with self.assertRaises(BufferError):
                    region.__exit__(None, None, None)
                region.info()  # it is open
                del user
                region.close()
                self.assertTrue(region.closed)

    def test_buffer_keeps_the_region_open(self):
        array = np.frombuffer(self.runtime.region_create(LENGTH).buffer, dtype=np.uint64)[1000:]
        gc.collect()
        array[:] = 7
        self.assertTrue((array == 7).all())
        with self.assertRaises(uffdwp.Error) as caught:
            self.runtime.close()
        self.assertEqual(caught.exception.errno, errno.EBUSY)
        del array

    def test_attached_memory_cannot_go_away(self):
        memory = mmap.mmap(-1, LENGTH)
        region = self.runtime.region_attach(memory)
        with self.assertRaises(BufferError):
            memory.close()
        with region.snapshot_begin(self.path("image")):
            memory[0:3] = b"abc"
        region.close()
        self.assertEqual(memory[0:3], b"abc")
        memory.close()

    @unittest.skipIf(sys.version_info < (3, 12), "classes of Python have no buffers before 3.12")
    def test_region_is_a_buffer_itself(self):
        region = self.runtime.region_create(LENGTH)
        memory = memoryview(region)[8:]
        memory[0] = 3
        self.assertEqual(region.buffer[8], 3)
        with self.assertRaises(BufferError):
            region.close()
        del memory
        region.close()

    def test_growth_has_a_buffer_of_its_own(self):
        region = self.runtime.region_create(LENGTH, capacity_bytes=2 * LENGTH)
        small = region.buffer
        region.grow(2 * LENGTH)
        large = region.buffer
        large[2 * LENGTH - 1] = large[0] = 1
        self.assertEqual((len(small), len(large), small[0]), (LENGTH, 2 * LENGTH, 1))
        del small
        with self.assertRaises(BufferError):
            region.close()
        del large
        region.close()


class Garbage(Case):
    def test_what_is_not_closed_is_closed_when_it_is_garbage(self):
        region = self.runtime.region_create(LENGTH)
        things = [region, region.snapshot_begin(self.path("image"))]
        things.append(things)  # a cycle: collected in any order
        del region, things
        gc.collect()
        # tearDown closes the runtime, which is refused while a region is open

    def test_cycle_of_a_runtime_and_all_that_it_has(self):
        runtime = uffdwp.open()
        region = runtime.region_create(LENGTH)
        track = runtime.track_start()
        track.add(region.base, LENGTH)
        shot = region.snapshot_begin(callback=lambda offset, data: None)
        box = runtime._box
        loop = [runtime, region, track, shot]
        loop.append(loop)
        del runtime, region, track, shot, loop
        gc.collect()
        self.assertIsNone(box.pointer)

    def test_exception_is_not_hidden_by_the_end_of_a_block(self):
        with self.assertRaises(ZeroDivisionError):
            with self.runtime.region_create(LENGTH) as region:
                array = np.frombuffer(region.buffer, dtype=np.uint8)
                array[0] = 1 // 0
        del array, region


EXITS = {
    "all open": "",
    "array in a module that dies late": "import sys; sys.kept = array",
    "array in builtins": "import builtins; builtins.kept = array, shot, region",
    "cycles": "array_of = [runtime, region, shot, view, track]; array_of.append(array_of)",
    "writes while the interpreter ends": """
import atexit
class Late:
    def __init__(self, array): self.array = array
    def __del__(self): self.array[:] = 9
late = Late(array)
atexit.register(lambda: array.fill(8))
""",
    "a thread that writes": """
import threading
def write():
    while True: array[:] = 3
threading.Thread(target=write, daemon=True).start()
""",
    "sys.exit": "import sys; sys.exit(0)",
}


class Exits(unittest.TestCase):
    def test_exit_of_the_interpreter_in_any_order(self):
        for sink in ("callback=lambda offset, data: None", "path=sys.argv[1] + '/image'"):
            for name, last in EXITS.items():
                with self.subTest(name, sink=sink):
                    self.run_exit(sink, last)

    def run_exit(self, sink, last):
        lines = """
            import sys
            import numpy as np, uffdwp
            runtime = uffdwp.open()
            region = runtime.region_create(%d)
            array = np.frombuffer(region.buffer, dtype=np.uint64)
            view = region.view_open() if %r else None
            track = runtime.track_start()
            track.add(region.base, len(region))
            array[:] = 1
            shot = region.snapshot_begin(%s, rate_bytes=1 << 20)
            array[:] = 2
        """ % (LENGTH, has_views(), sink)
        lines = re.sub(r"(?m)^ {12}", "", lines) + "\n" + last
        folder = os.environ.get("UFFDWP_SCRATCH", "/tmp")
        program(lines, folder)
        self.assertEqual([name for name in os.listdir(folder) if name.startswith((".uffdwp", "image"))], [])


class Errors(Case):
    def test_error_is_an_oserror_with_the_text_of_the_library(self):
        with self.assertRaises(uffdwp.Error) as caught:
            self.runtime.region_create(LENGTH + 1)
        error = caught.exception
        self.assertIsInstance(error, OSError)
        self.assertEqual(error.errno, errno.EINVAL)
        self.assertIn("page size", error.strerror)
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((again.errno, again.strerror), (error.errno, error.strerror))

    def test_calls_without_a_text_have_that_of_the_number(self):
        with self.runtime.region_create(LENGTH) as region:
            with self.assertRaises(uffdwp.Error) as caught:
                region.prepare_write(LENGTH, 1)
            self.assertEqual(caught.exception.errno, errno.ERANGE)
            self.assertEqual(caught.exception.strerror, os.strerror(errno.ERANGE))

    def test_unknown_options_and_closed_handles(self):
        with self.assertRaisesRegex(TypeError, "capacity_bytes"):
            self.runtime.region_create(LENGTH, capacity=5)
        with self.assertRaises(TypeError):
            self.runtime.region_create(LENGTH, on_loss=print)
        region = self.runtime.region_create(LENGTH)
        region.close()
        region.close()
        with self.assertRaisesRegex(ValueError, "region is closed"):
            region.buffer

    def test_names_are_those_of_c(self):
        for name in dir(_library.lib):
            if name.startswith("UFFDWP_"):
                self.assertTrue(hasattr(uffdwp, name[7:]), name)
        self.assertEqual(uffdwp.SNAPSHOT_KEEP, 2)
        self.assertEqual(uffdwp.version(), uffdwp.__version__)


class Layout(unittest.TestCase):
    def test_sizes_and_offsets_are_those_of_the_compiler(self):
        compiler = shutil.which(os.environ.get("CC", "cc"))
        include = os.path.join(os.environ.get("UFFDWP_SOURCE", ""), "include")
        if compiler is None or not os.path.exists(os.path.join(include, "uffdwp.h")):
            self.skipTest("no compiler, or no headers")
        expected, lines = self.as_python_has_them()
        source = os.path.join(os.environ["UFFDWP_SCRATCH"], "layout")
        with open(source + ".c", "w") as file:
            file.write("#include <stdio.h>\n#include <uffdwp.h>\nint main(void)\n{\n%s\treturn 0;\n}\n" % lines)
        subprocess.run([compiler, "-I" + include, source + ".c", "-o", source], check=True)
        found = subprocess.run([source], stdout=subprocess.PIPE, universal_newlines=True, check=True).stdout
        self.assertEqual(found.split("\n")[:-1], expected)
        self.assertGreater(len(expected), 300)

    def as_python_has_them(self):
        ffi = _library.ffi
        expected, lines = [], ""
        for name in ffi.list_types()[1]:
            kind = ffi.typeof("struct " + name)
            if not kind.fields:
                continue
            expected.append("%s %d" % (name, ffi.sizeof(kind)))
            lines += '\tprintf("%%s %%zu\\n", "%s", sizeof(struct %s));\n' % (name, name)
            for field, place in kind.fields:
                expected.append("%s.%s %d %d" % (name, field, place.offset, ffi.sizeof(place.type)))
                lines += ('\tprintf("%%s %%zu %%zu\\n", "%s.%s", offsetof(struct %s, %s), '
                          'sizeof(((struct %s *)0)->%s));\n' % (name, field, name, field, name, field))
        for name, number in _interface.numbers.items():
            expected.append("%s %d" % (name, number))
            lines += '\tprintf("%%s %%lld\\n", "%s", (long long)%s);\n' % (name, name)
        return expected, lines


if __name__ == "__main__":
    unittest.main()
