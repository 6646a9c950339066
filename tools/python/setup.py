# SPDX-License-Identifier: MIT
"""What setup.cfg cannot say: uffdwp/_interface.py is made from the headers of the installed library, by interface.py."""
import os
import sys

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import interface  # noqa: E402


class BuildWithInterface(build_py):
    def run(self):
        super().run()
        package = os.path.join(self.build_lib, "uffdwp")
        self.mkpath(package)
        interface.write_interface(interface.find_include(), os.path.join(package, "_interface.py"))


setup(version=interface.version_of(interface.find_include()), cmdclass={"build_py": BuildWithInterface})
