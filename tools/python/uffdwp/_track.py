# SPDX-License-Identifier: MIT
"""Tracks: what was written since it was last asked."""
from ._library import Handle, answer_of, check, ffi, lib, options_of
from ._memory import range_of

_RANGES = 512


class Track(Handle):
    """Memory of which it is reported what was written. It may be any: of a region, or of an mmap.mmap object."""

    _noun = "track"

    def __init__(self, runtime, options):
        made, kept = options_of("uffdwp_track_options", options)
        out = ffi.new("struct uffdwp_track **")
        check(lib.uffdwp_track_start(runtime._pointer, made, out))
        super().__init__(out[0], lib.uffdwp_track_stop, runtime)
        self._owners = self._box.kept = {}  # the memory of other objects, by its address

    def add(self, memory, length=None, flags=0):
        """Adds whole pages: a writable buffer, which is kept, or an address and a length."""
        address, length, owner = range_of(memory, length)
        check(lib.uffdwp_track_add(self._pointer, ffi.cast("void *", address), length, flags))
        self._owners[address] = owner

    def remove(self, memory, length=None):
        address, length, _ = range_of(memory, length)
        check(lib.uffdwp_track_remove(self._pointer, ffi.cast("void *", address), length))
        self._owners.pop(address, None)

    def collect(self, start=0, length=0, flags=0):
        """What was written since the last collect, as a list of (start, end), which are addresses; it is armed again.
        start, length: of these addresses alone. flags: TRACK_COLLECT_*."""
        found = []
        ranges = ffi.new("struct uffdwp_written[]", _RANGES)
        collect, _ = options_of("uffdwp_collect", {"flags": flags, "start": start, "length": length})
        collect.ranges = ranges
        collect.capacity = _RANGES
        end = start + length if length else None
        while True:
            check(lib.uffdwp_track_collect(self._pointer, collect))
            found += [(written.start, written.end) for written in ranges[0:collect.count]]
            if not collect.next:
                return found
            collect.start = collect.next
            if end is not None:
                collect.length = end - int(ffi.cast("uintptr_t", collect.next))

    def prepare(self, ranges):
        """Pages of these (start, end) are about to be written."""
        ranges = list(ranges)
        made = ffi.new("struct uffdwp_written[]", len(ranges))
        for at, (start, end) in enumerate(ranges):
            made[at].start, made[at].end = start, end
        check(lib.uffdwp_track_prepare(self._pointer, made, len(ranges)))

    def info(self):
        return answer_of("uffdwp_track_info", lib.uffdwp_track_info, self._pointer)

    def audit(self):
        """How many bytes of it were unmapped or replaced without a report."""
        vanished = ffi.new("uint64_t *")
        check(lib.uffdwp_track_audit(self._pointer, vanished))
        return vanished[0]

    def close(self):
        """Ends it: its memory is not watched any more."""
        super().close()
        self._owners.clear()

    stop = close
