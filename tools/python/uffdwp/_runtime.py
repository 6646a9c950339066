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
    """Opens a runtime: uffdwp_open(). Options:

      flags            OPEN_NO_URING, OPEN_USER_MODE, OPEN_CONTROL: other processes of this user may ask by a socket what
                       regions do, and have snapshots taken, as uffdwp-ctl list, stat and snapshot do
      handler_threads  how many, 1 to 64; 0: the library's choice
      handler_cpus     where they may run, a text: "0-3,8"
      numa_nodes       where they run, bit n for node n: 1 << 0 | 1 << 1
      control          with OPEN_CONTROL, what may be asked: CONTROL_LOOK | CONTROL_SNAPSHOT (the default), CONTROL_ARM
      control_path     with OPEN_CONTROL, where the socket lies: an absolute path (str, bytes, os.PathLike) of at most 103
                       bytes; the default: PID.sock in a folder of the user's

    uffdwp.open(flags=uffdwp.OPEN_CONTROL, control=uffdwp.CONTROL_LOOK)
    """

    _noun = "runtime"

    def __init__(self, **options):
        made, kept = options_of("uffdwp_options", options)
        out = ffi.new("struct uffdwp **")
        check(lib.uffdwp_open(made, out))
        del kept
        super().__init__(out[0], lib.uffdwp_close)

    def region_create(self, length, **options):
        """A new region of so many bytes, a multiple of its page size. Options:

          flags            REGION_*
          mechanism        MECHANISM_*; MECHANISM_REARM where restore_begin() is to come
          delivery         DELIVERY_*
          capacity_bytes   up to where it may grow
          huge_page_bytes  with REGION_HUGETLB: of a huge page; 0: the system's default
          numa             NUMA_*, with numa_nodes, bit n for node n
          name             shown in /proc/PID/maps, a text
          address          where it is mapped, an int

        Of region_attach() also fd, a descriptor, and fd_offset, in bytes.
        """
        return Region._create(self, length, options)

    def region_attach(self, memory, length=None, **options):
        """Memory that is mapped already: a writable buffer (mmap.mmap), which is kept, or an address and a length."""
        return Region._attach(self, memory, length, options)

    def region_adopt(self, length, mapper, **options):
        """Memory that another process maps: the first bytes of options' fd, and the process as a dictionary.

        The fields of struct uffdwp_mapper: uffd and pidfd (descriptors), flags (MAPPER_*), and mappings, a list of
        (address, offset, length), all in bytes.
        """
        return Region._adopt(self, length, mapper, options)

    def track_start(self, **options):
        """A track, which is empty at first. Options: flags (TRACK_START_*), mechanism (MECHANISM_*), delivery
        (DELIVERY_*)."""
        return Track(self, options)

    def fork(self, want_child=False, regions=(), **options):
        """As os.fork(), and the child has the regions as of this instant, as private memory at the same addresses.

        The pid, or 0 in the child; with want_child the pid and a Child (None in the child). A lock that writers take is
        taken around the call. Options:

          regions        those that the child has; the default: all created regions of shared memory
          flags          FORK_*
          arming         ARMING_*
          private_bytes  bound on memory for pages that were written meanwhile; 0: none
          policy         POLICY_*: what happens at that bound: writers wait, up to wait_ns (nanoseconds), or the child ends
          window_max     most pages that one write breaks off the child, 1 to 64; 0: 1. With more a program that writes
                         much has fewer faults, and the child takes memory for pages that were not written

        runtime.fork(window_max=64, private_bytes=1 << 30)
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
