# SPDX-License-Identifier: MIT
"""Images back into regions."""
from ._job import Job
from ._library import answer_of, check, ffi, lib, options_of


def _options(path, options):
    if options.get("paths") is not None:
        options["paths"] = list(options["paths"])
        options["path_count"] = len(options["paths"])
    return options_of("uffdwp_restore_options", dict(options, path=path))


def restore(region, path, options):
    made, kept = _options(path, options)
    return answer_of("uffdwp_restore_progress",
                     lambda progress: lib.uffdwp_restore(region._pointer, made, progress))


class Restore(Job):
    """A lazy restore: the memory may be used at once. As a context manager it is waited for at the end of the block.

    A page that cannot be read, or that was not fetched when the restore is freed, raises SIGBUS when it is touched, which
    ends Python: check() answers with an exception instead.
    """

    _noun = "restore"

    def __init__(self, region, path, options):
        if options.get("first") is not None:
            first = list(options["first"])
            options.update(first=ffi.new("uint64_t[]", first), first_count=len(first))
        made, kept = _options(path, options)
        out = ffi.new("struct uffdwp_restore **")
        check(lib.uffdwp_restore_begin(region._pointer, made, out))
        super().__init__(out[0], lib.uffdwp_restore_free, region)

    def check(self, offset, length):
        """Waits until the pages of a range are there; raises what went wrong with the first that cannot be."""
        check(lib.uffdwp_restore_check(self._pointer, offset, length), "")

    def touched(self):
        """The offsets of pages in the order in which they were accessed before they were there, as many as the option
        touches_max has noted: for first=... of the next restore of the image."""
        count = ffi.new("size_t *")
        check(lib.uffdwp_restore_touched(self._pointer, ffi.NULL, 0, count))
        offsets = ffi.new("uint64_t[]", max(count[0], 1))
        check(lib.uffdwp_restore_touched(self._pointer, offsets, count[0], count))
        return list(offsets[0:min(count[0], len(offsets))])
