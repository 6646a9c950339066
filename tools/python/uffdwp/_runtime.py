# SPDX-License-Identifier: MIT
"""The runtime, and the fork.

A fork has to be made as os.fork() does it: with the interpreter's lock held, so that the child has it, and with
PyOS_AfterFork_Child() as the first thing that the child does. Were a single line of Python to run before that, the child
could be asked to pass the lock on, to a thread that it does not have, and wait for ever. So before, fork and after are one
expression of functions in C: ctypes.PyDLL calls with the lock held, and map(), chain() and deque() call one function after
the other without the interpreter's loop, where such requests are looked at. What os.register_at_fork() registered runs
from within these functions, as always.
"""
import collections
import ctypes
import gc
import itertools
import operator
import sys

from . import _interface
from ._library import Handle, address_of, answer_of, check, ffi, lib, options_of
from ._region import Region
from ._track import Track

_call = operator.methodcaller("__call__")
_fork = ctypes.PyDLL(_interface.library).uffdwp_fork
_fork.argtypes = [ctypes.c_void_p] * 3
_fork.restype = ctypes.c_int
_before = ctypes.pythonapi.PyOS_BeforeFork
_after_in_child = ctypes.pythonapi.PyOS_AfterFork_Child
_after_in_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
for _function in (_before, _after_in_child, _after_in_parent):
    _function.argtypes = []
    _function.restype = None


def _fork_as_python(*arguments):
    """uffdwp_fork() with what Python does around a fork."""
    forked, kept = itertools.tee(map(_fork, *([argument] for argument in arguments)))
    after = map({0: _after_in_child}.get, forked, itertools.repeat(_after_in_parent))
    steps = map(_call, itertools.chain([_before], after))
    was_enabled = gc.isenabled()
    gc.disable()  # a collection may run lines of Python
    try:
        collections.deque(steps, maxlen=0)  # all of it, lazily: before, fork, after
    finally:
        if was_enabled:
            gc.enable()
    return next(kept)


class Runtime(Handle):
    """Opens a runtime: uffdwp_open(). Options: flags, handler_threads, handler_cpus, numa_nodes,
    control, control_path."""

    _noun = "runtime"

    def __init__(self, **options):
        made, kept = options_of("uffdwp_options", options)
        out = ffi.new("struct uffdwp **")
        check(lib.uffdwp_open(made, out))
        del kept
        super().__init__(out[0], lib.uffdwp_close)

    def region_create(self, length, **options):
        """A new region of so many bytes. Options: those of struct uffdwp_region_options, but on_loss."""
        return Region._create(self, length, options)

    def region_attach(self, memory, length=None, **options):
        """Memory that is mapped already: a writable buffer (mmap.mmap), which is kept, or an address and a length."""
        return Region._attach(self, memory, length, options)

    def region_adopt(self, length, mapper, **options):
        """Memory that another process maps: the first bytes of options' fd, and the process as a dictionary.

        The fields of struct uffdwp_mapper: uffd, pidfd, flags, and mappings, a list of (address, offset, length).
        """
        return Region._adopt(self, length, mapper, options)

    def track_start(self, **options):
        """A track, which is empty at first. Options: flags, mechanism, delivery."""
        return Track(self, options)

    def fork(self, want_child=False, regions=(), **options):
        """As os.fork(), and the child has the regions as of this instant, as private memory at the same addresses.

        The pid, or 0 in the child; with want_child the pid and a Child (None in the child). A lock that writers take is
        taken around the call. Options: flags, arming, policy, private_bytes, wait_ns.
        """
        made, kept = options_of("uffdwp_fork_options", options)
        pointers = [region._pointer for region in regions]
        if pointers:
            kept.append(ffi.new("struct uffdwp_region *[]", pointers))
            made.regions = kept[-1]
            made.region_count = len(pointers)
        out = ffi.new("struct uffdwp_child **")
        sys.audit("os.fork")
        pid = check(_fork_as_python(address_of(self._pointer), address_of(made), address_of(out) if want_child else None))
        if not want_child:
            return pid
        return pid, Child(out[0], self) if pid else None


class Child(Handle):
    """A child of Runtime.fork(), as its parent sees it."""

    _noun = "child"

    def __init__(self, pointer, runtime):
        super().__init__(pointer, lib.uffdwp_child_free, runtime)

    def info(self):
        return answer_of("uffdwp_child_info", lib.uffdwp_child_info, self._pointer)

    free = Handle.close
