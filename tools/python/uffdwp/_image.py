# SPDX-License-Identifier: MIT
"""Images in files."""
import errno
import os

from ._library import Handle, answer_of, check, facts_of, ffi, lib, options_of, read_text


class Image(Handle):
    """An image, raw or a delta with all its ancestors: uffdwp_image_open(). Options: flags (IMAGE_OPEN_*), contexts (reads
    of compressed pages at a time, 1 to 64), paths (files that may be ancestors)."""

    _noun = "image"

    def __init__(self, path, **options):
        if options.get("paths") is not None:
            options["paths"] = list(options["paths"])
            options["path_count"] = len(options["paths"])
        made, kept = options_of("uffdwp_image_options", options)
        out = ffi.new("struct uffdwp_image **")
        check(lib.uffdwp_image_open(_path(path), made, out))
        super().__init__(out[0], lib.uffdwp_image_close)

    def info(self, link=0):
        return answer_of("uffdwp_image_info", lib.uffdwp_image_info, self._pointer, link)

    def __len__(self):
        return self.info().length_bytes

    def read(self, offset, length):
        """Bytes of the memory that it shows."""
        memory = bytearray(length)
        self.readinto(offset, memory)
        return bytes(memory)

    def readinto(self, offset, memory):
        """The same, into a writable buffer, which is filled."""
        to = ffi.from_buffer("char[]", memory, require_writable=True)
        result = lib.uffdwp_image_read(self._pointer, offset, to, len(to))
        check(result, self.text() if result < 0 else None)

    def extents(self):
        """Where its bytes come from, in order: objects with offset, length, kind (EXTENT_*), link (in which file of the
        chain, as of info()), and for EXTENT_DATA fd and file_offset; fd stays the library's."""
        offset, extent = 0, ffi.new("struct uffdwp_image_extent *")
        extent.sz = ffi.sizeof(extent[0])
        while check(lib.uffdwp_image_next(self._pointer, offset, extent)):
            yield facts_of(extent[0])
            offset = extent.offset + extent.length

    def text(self):
        return read_text(lambda buffer, size: lib.uffdwp_image_text(self._pointer, buffer, size))

    def progress(self, callback):
        """Names what verify(), merge() and diff() call with (done_bytes, total_bytes) while they run; None: nothing. An
        exception of it ends them."""

        @ffi.callback("int(void *, uint64_t, uint64_t)", error=-errno.ECANCELED)
        def take(_, done_bytes, total_bytes):
            callback(done_bytes, total_bytes)
            return 0

        self._taking = take if callback else ffi.NULL
        check(lib.uffdwp_image_progress(self._pointer, self._taking, ffi.NULL))

    def verify(self):
        """Reads and checks all files of it; raises what is wrong."""
        return answer_of("uffdwp_image_verified", lib.uffdwp_image_verify, self._pointer)

    def merge(self, path, **options):
        """Writes what it shows into one file. Options: flags (IMAGE_MERGE_*), deltas (0: a raw image; else how many of the
        newest become one delta), compress (level of zstd), threads (1 to 64), mode (permission bits)."""
        made, kept = options_of("uffdwp_image_merge_options", options)
        check(lib.uffdwp_image_merge(self._pointer, _path(path), made))

    def diff(self, to, path=None, **options):
        """In which ranges another image differs: a list of (offset, length), in bytes. path: a delta between the two is
        written, with compress (level of zstd) and mode (permission bits). flags: 0."""
        found = []

        @ffi.callback("int(void *, uint64_t, uint64_t)")
        def take(_, offset, length):
            found.append((offset, length))
            return 0

        made, kept = options_of("uffdwp_image_diff", dict(options, path=path))
        made.callback = take
        check(lib.uffdwp_image_diff(self._pointer, to._pointer, made))
        return found


def _path(path):
    return ffi.new("char[]", os.fsencode(path))
