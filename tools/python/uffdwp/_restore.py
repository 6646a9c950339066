# SPDX-License-Identifier: MIT
"""Images back into regions."""
import errno
import operator

from ._job import Job
from ._library import Error, answer_of, check, ffi, lib, options_of


def _options(path, options):
    if options.get("paths") is not None:
        options["paths"] = list(options["paths"])
        options["path_count"] = len(options["paths"])
    return options_of("uffdwp_restore_options", dict(options, path=path))


def _offsets_of(first):
    """Offsets in bytes, as uint64_t: of a list, of Restore.touched(), or of an array of 8-byte integers."""
    try:
        item = memoryview(first).itemsize
    except TypeError:
        item = None  # no array
    if isinstance(first, str) or item not in (None, 8):
        raise TypeError("first takes offsets into the region, in bytes, as integers: a list, or an array of 8-byte ones")
    offsets = [operator.index(offset) for offset in first]
    if any(offset < 0 for offset in offsets):
        raise ValueError("an offset of first is negative")
    return ffi.new("uint64_t[]", offsets), len(offsets)


def restore(region, path, options):
    progress, raised = options.pop("progress", None), []

    @ffi.callback("int(void *, uint64_t, uint64_t)", error=-errno.ECANCELED)
    def take(_, done_bytes, total_bytes):
        try:
            progress(done_bytes, total_bytes)
            return 0
        except BaseException as error:  # raised again below
            raised.append(error)
            return -errno.ECANCELED

    made, kept = _options(path, options)
    if progress is not None:
        made.progress = take
    try:
        return answer_of("uffdwp_restore_progress",
                         lambda answer: lib.uffdwp_restore(region._pointer, made, answer))
    except Error:
        if raised:
            raise raised[0] from None
        raise


class Restore(Job):
    """A lazy restore: the memory may be used at once. As a context manager it is waited for at the end of the block.

    A page that cannot be read, or that was not fetched when the restore is freed, raises SIGBUS when it is touched, which
    ends Python: check() answers with an exception instead.
    """

    _noun = "restore"

    def __init__(self, region, path, options):
        if options.get("first") is not None:
            first, count = _offsets_of(options["first"])
            options.update(first=first, first_count=count)
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
