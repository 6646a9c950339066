# SPDX-License-Identifier: MIT
"""Regions."""
from ._library import Handle, answer_of, check, ffi, lib, options_of
from ._memory import Exports, range_of
from ._restore import Restore, restore
from ._snapshot import Snapshot
from ._view import View

_LOSSES = 256


def mapper_of(fields):
    """A struct uffdwp_mapper of a dictionary, and what has to live as long as it does."""
    fields = dict(fields)
    if "mapping_count" in fields:
        raise TypeError("mapping_count is how many mappings there are")
    mappings = [tuple(mapping) for mapping in fields.pop("mappings", ())]
    mapper, kept = options_of("uffdwp_mapper", fields)
    kept.append(ffi.new("struct uffdwp_mapping[]", mappings))
    mapper.mappings = kept[-1]
    mapper.mapping_count = len(mappings)
    return mapper, kept


class Region(Handle):
    """Memory that is watched: a buffer, that numpy.frombuffer() and memoryview() take."""

    _noun = "region"

    def __init__(self, pointer, runtime, kept=None):
        super().__init__(pointer, lib.uffdwp_region_close, runtime)
        self._box.kept = kept  # attached: the memory of another object
        self._exports = Exports(self, self._noun)

    @classmethod
    def _create(cls, runtime, length, options):
        made, kept = cls._options(options)
        out = ffi.new("struct uffdwp_region **")
        check(lib.uffdwp_region_create(runtime._pointer, length, made, out))
        return cls(out[0], runtime)

    @classmethod
    def _attach(cls, runtime, memory, length, options):
        made, kept = cls._options(options)
        address, length, owner = range_of(memory, length)
        out = ffi.new("struct uffdwp_region **")
        check(lib.uffdwp_region_attach(runtime._pointer, ffi.cast("void *", address), length, made, out))
        return cls(out[0], runtime, owner)

    @classmethod
    def _adopt(cls, runtime, length, mapper, options):
        made, kept = cls._options(options)
        described, kept_too = mapper_of(mapper)
        out = ffi.new("struct uffdwp_region **")
        check(lib.uffdwp_region_adopt(runtime._pointer, length, made, described, out))
        del kept, kept_too
        return cls(out[0], runtime)

    @staticmethod
    def _options(options):
        if "on_loss" in options or "on_loss_user" in options:
            raise TypeError("on_loss runs in a thread that writers wait for, and Python may wait for a writer: ask losses()")
        return options_of("uffdwp_region_options", options)

    @property
    def base(self):
        """The address of the first byte."""
        return self.info().base

    @property
    def buffer(self):
        """All of its memory, as a writable memoryview of bytes. It keeps the region open."""
        return self._exports.export(self._where)

    def _where(self):
        info = self.info()
        return info.base, info.length_bytes

    def __buffer__(self, flags):  # Python 3.12 and later: memoryview(region)
        return self.buffer

    def __len__(self):
        return self.info().length_bytes

    def __bool__(self):
        return not self.closed

    def close(self):
        """Closes it. BufferError while memoryviews or arrays of it are in use."""
        self._exports.close(super().close)

    def info(self):
        return answer_of("uffdwp_region_info", lib.uffdwp_region_info, self._pointer)

    def stats(self):
        return answer_of("uffdwp_region_stats", lib.uffdwp_region_stats, self._pointer)

    def audit(self):
        return answer_of("uffdwp_audit", lib.uffdwp_region_audit, self._pointer)

    def losses(self):
        """What was lost since it was last asked: a list of (start, end, cause)."""
        found = []
        ranges = ffi.new("struct uffdwp_lost_range[]", _LOSSES)
        count = _LOSSES
        while count == _LOSSES:
            count = check(lib.uffdwp_region_losses(self._pointer, ranges, _LOSSES))
            found += [(lost.start, lost.end, lost.cause) for lost in ranges[0:count]]
        return found

    def join(self, mapper):
        """Adopted regions only: adds a process that maps the memory. mapper: see Runtime.region_adopt()."""
        described, kept = mapper_of(mapper)
        check(lib.uffdwp_region_join(self._pointer, described))
        del kept

    def grow(self, length):
        check(lib.uffdwp_region_grow(self._pointer, length))

    def punch(self, offset, length):
        check(lib.uffdwp_region_punch(self._pointer, offset, length))

    def arm(self, offset, length):
        check(lib.uffdwp_region_arm(self._pointer, offset, length))

    def disarm(self, offset, length):
        check(lib.uffdwp_region_disarm(self._pointer, offset, length))

    def armed(self, offset, length):
        """How many pages of a range are armed."""
        pages = ffi.new("uint64_t *")
        check(lib.uffdwp_region_armed(self._pointer, offset, length, pages))
        return pages[0]

    def prepare_write(self, offset, length):
        """To be called before a system call writes to the range (file.readinto()), under inline delivery."""
        check(lib.uffdwp_prepare_write(self._pointer, offset, length), "")

    def prepare_read(self, offset, length):
        """To be called before a system call reads the range (file.write()), under inline delivery."""
        check(lib.uffdwp_prepare_read(self._pointer, offset, length), "")

    def snapshot_begin(self, path=None, **options):
        """Makes the cut and begins to save: see Snapshot."""
        return Snapshot._begin([self], [dict(options, path=path)])[0]

    def view_open(self, lock=None):
        """A view of this instant. lock: taken right before the cut, given back right after it."""
        return View(self, lock)

    def restore(self, path, **options):
        """Reads an image into the region, whole; path: raw, or the newest delta of a chain. Returns its progress.

        Options: flags (RESTORE_*), threads (1 to 64; 0: 4), paths (files that may be ancestors of a delta), progress: a
        function that is called with (done_bytes, total_bytes), must not use the region, and ends the restore by an
        exception.
        """
        return restore(self, path, options)

    def restore_begin(self, path, **options):
        """Begins to read an image lazily, raw or the newest delta of a chain: see Restore. Options:

          flags        RESTORE_*
          threads      that fetch, 1 to 64; 0: 4
          paths        files that may be ancestors of a delta
          touches_max  how many first accesses are noted for Restore.touched(); 0: none
          first        offsets into the region, in bytes: a list of int, what Restore.touched() returned, or an array of
                       8-byte integers. Their pages are fetched before all others that no access waits for, in this order

        region.restore_begin("image.raw", first=[0, 1 << 20], touches_max=1000)
        """
        return Restore(self, path, options)
