# SPDX-License-Identifier: MIT
"""What the tests of the Python package share: a scratch folder, a runtime, programs in processes of their own."""
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

import uffdwp

LENGTH = 4 << 20
PAGE = os.sysconf("SC_PAGESIZE")
SECONDS = 900  # against hanging only


def program(text, *arguments, environment=None):
    """Runs lines of Python in a process of their own, and returns what it printed; it has to end well and silently."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text), *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=SECONDS,
                          env=dict(os.environ, **(environment or {})))
    if done.returncode != 0 or done.stderr:
        raise AssertionError("a program ended with %d: %s%s" % (done.returncode, done.stdout, done.stderr))
    return done.stdout


def works(mechanism, delivery=None):
    """Whether a mechanism works here for shared memory (by a delivery: its name)."""
    rung = uffdwp.doctor()["memory"]["shmem"]["rungs"][mechanism]
    return bool(rung["works"] and (delivery is None or rung[delivery + "_works"]))


def has_views():
    return works("marker") or works("rearm")


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="uffdwp-python-", dir=os.environ.get("UFFDWP_SCRATCH"))
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.runtime = uffdwp.open()

    def tearDown(self):
        self.runtime.close()  # refused if a test left anything open

    def path(self, name):
        return os.path.join(self.folder, name)
