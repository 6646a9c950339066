# SPDX-License-Identifier: MIT
"""Nothing of the headers is forgotten: each function, structure, number and option can be used from Python, or is named
here, with a reason, as left out. The headers are read by this file, not by interface.py."""
import glob
import os
import re
import unittest

import uffdwp

PACKAGE = os.path.dirname(os.path.abspath(uffdwp.__file__))
INCLUDE = os.path.join(os.environ.get("UFFDWP_SOURCE", ""), "include", "uffdwp")

FUNCTIONS_LEFT_OUT = {
    "uffdwp_log_to": "it is called under locks of the library, and would wait for the interpreter's",
    "uffdwp_region_locate": "an address is no object",
    "uffdwp_region_base": "Region.base and Region.info().base are the same",
    "uffdwp_snapshot_begin": "Region.snapshot_begin() is a group of one",
}

STRUCTURES_LEFT_OUT = {}

# By whose docstrings an option is explained. A structure with options that is missing here fails the test.
OPTIONS = {
    "uffdwp_options": [uffdwp.Runtime],
    "uffdwp_region_options": [uffdwp.Runtime.region_create],
    "uffdwp_mapper": [uffdwp.Runtime.region_adopt],
    "uffdwp_snapshot_options": [uffdwp.Snapshot],
    "uffdwp_view_options": [uffdwp.Region.view_open],
    "uffdwp_fork_options": [uffdwp.Runtime.fork],
    "uffdwp_restore_options": [uffdwp.Region.restore, uffdwp.Region.restore_begin],
    "uffdwp_image_options": [uffdwp.Image],
    "uffdwp_image_merge_options": [uffdwp.Image.merge],
    "uffdwp_image_diff": [uffdwp.Image.diff],
    "uffdwp_track_options": [uffdwp.Runtime.track_start],
    "uffdwp_collect": [uffdwp.Track.collect],
}

# Fields that Python fills, or has in another form.
FILLED = {"sz", "reserved", "user", "path_count", "first_count", "region_count", "mapping_count", "progress_user",
          "cut_enter", "cut_leave", "cut_user", "on_loss", "on_loss_user"}
FILLED_OF = {
    "uffdwp_image_diff": {"callback", "ranges", "bytes", "page_bytes"},
    "uffdwp_collect": {"ranges", "capacity", "bitmap", "bitmap_bytes", "callback", "count", "bytes", "next", "vanished_bytes"},
    "uffdwp_view_options": {"flags"},  # there is none
}


def plain(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


@unittest.skipUnless(glob.glob(os.path.join(INCLUDE, "*.h")), "no headers")
class Headers(unittest.TestCase):
    def setUp(self):
        self.headers = ""
        for path in sorted(glob.glob(os.path.join(INCLUDE, "*.h"))):
            with open(path, encoding="ascii") as file:
                self.headers += plain(file.read())
        self.package = ""
        for path in sorted(glob.glob(os.path.join(PACKAGE, "*.py"))):
            if not path.endswith("_interface.py"):
                with open(path, encoding="utf-8") as file:
                    self.package += file.read()

    def functions(self):
        found = re.findall(r"\bUFFDWP_EXPORT\b[^;(]*?\b(uffdwp_\w+)\s*\(", self.headers)
        self.assertEqual(len(found), len(re.findall(r"\bUFFDWP_EXPORT\s+(?!__attribute__)(?=\w)", self.headers)))
        return found

    def is_called(self, name):
        if re.search(r"\b_?lib\.%s\b|PyDLL\(.*\)\.%s\b" % (name, name), self.package):
            return True
        job = re.fullmatch(r"uffdwp_(snapshot|restore)_(\w+)", name)  # by Job._call()
        return bool(job and '_call("%s")' % job.group(2) in self.package)

    def test_each_function_is_called_or_left_out(self):
        functions = self.functions()
        self.assertGreater(len(functions), 70)
        forgotten = [name for name in functions if not self.is_called(name) and name not in FUNCTIONS_LEFT_OUT]
        self.assertEqual(forgotten, [], "offer them, or name them in FUNCTIONS_LEFT_OUT")
        self.assertEqual([name for name in FUNCTIONS_LEFT_OUT if name not in functions or self.is_called(name)], [],
                         "they are not left out")

    def structures(self):
        return dict(re.findall(r"\bstruct (uffdwp_\w+) \{(.*?)\n\};", self.headers, re.S))

    def test_each_structure_is_used_or_left_out(self):
        structures = self.structures()
        self.assertGreater(len(structures), 25)
        contained = set(re.findall(r"struct (uffdwp_\w+)", " ".join(structures.values())))
        by_noun = {"uffdwp_%s_progress" % noun for noun in ("snapshot", "restore")}  # by Job.poll()
        forgotten = [name for name in structures if not re.search(r"\b%s\b" % name, self.package)
                     and name not in contained | by_noun | set(STRUCTURES_LEFT_OUT)]
        self.assertEqual(forgotten, [])

    def test_each_number_has_its_name(self):
        names = re.findall(r"^#define UFFDWP_(\w+) +(?:\d|\(1u)", self.headers, re.M)
        for numbers in re.findall(r"\benum uffdwp_\w+ \{(.*?)\}", self.headers, re.S):
            names += re.findall(r"\bUFFDWP_(\w+) *(?:[=,]|$)", numbers)
        self.assertGreater(len(names), 90)
        self.assertEqual([name for name in names if not isinstance(getattr(uffdwp, name, None), int)], [])

    def test_each_option_is_explained(self):
        structures = self.structures()
        with_options = [name for name in structures if name.endswith("options")]
        self.assertEqual([name for name in with_options if name not in OPTIONS], [], "add them to OPTIONS")
        unexplained = []
        for name, described in OPTIONS.items():
            text = " ".join(thing.__doc__ or "" for thing in described)
            fields = set(re.findall(r"\b(\w+)(?:\[\w+\])?;", structures[name]))
            fields -= {"cut_user"} if "(*" in structures[name] else set()
            for field in sorted(fields - FILLED - FILLED_OF.get(name, set())):
                if not re.search(r"\b%s\b" % field, text):
                    unexplained.append("%s.%s" % (name, field))
        self.assertEqual(unexplained, [], "docstrings say what an option takes")

    def test_left_out_is_what_the_manual_says(self):
        path = os.path.join(os.environ["UFFDWP_SOURCE"], "tools", "python", "README.md")
        with open(path, encoding="utf-8") as file:
            manual = file.read()
        for name in set(FUNCTIONS_LEFT_OUT) - {"uffdwp_snapshot_begin"}:  # a method has that name
            self.assertIn("`%s`" % name, manual)


if __name__ == "__main__":
    unittest.main()
