# SPDX-License-Identifier: MIT
"""libuffdwp in Python: snapshots of live memory, increments, restore, views, and what was written.

Names are those of C without uffdwp_: uffdwp_snapshot_begin(region, ...) is region.snapshot_begin(...), the number
UFFDWP_SNAPSHOT_KEEP is uffdwp.SNAPSHOT_KEEP, and fields of options are keyword arguments. The top of uffdwp.h says what the
library cannot see; README.md says what is different here.
"""
from . import _interface
from ._image import Image
from ._library import Error, ffi as _ffi, lib as _lib
from ._probe import Probe, doctor
from ._region import Region
from ._restore import Restore
from ._runtime import Child, Runtime
from ._snapshot import Snapshot, snapshot_begin_group
from ._track import Track
from ._view import View

__all__ = ["Child", "Error", "Image", "Probe", "Region", "Restore", "Runtime", "Snapshot", "Track", "View", "built",
           "doctor", "image_open", "open", "probe_run", "snapshot_begin_group", "version"]

open = Runtime
image_open = Image
probe_run = Probe


def version():
    """The version of the library that is loaded."""
    return _ffi.string(_lib.uffdwp_version()).decode()


def built():
    """What the library was built with: BUILT_* bits."""
    return _lib.uffdwp_built()


def _add_numbers():
    numbers = dict(_interface.numbers)
    numbers.update((name, getattr(_lib, name)) for name in dir(_lib) if name.startswith("UFFDWP_"))
    for name, number in numbers.items():
        globals()[name[len("UFFDWP_"):]] = number


_add_numbers()
__version__ = "%d.%d.%d" % tuple(_interface.numbers["UFFDWP_VERSION_" + part] for part in ("MAJOR", "MINOR", "PATCH"))
