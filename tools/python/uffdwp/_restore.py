# SPDX-License-Identifier: MIT
"""Images back into regions."""
import errno

from ._library import Handle, answer_of, check, ffi, lib, options_of, read_text
from ._snapshot import wait_for


def _options(path, options):
    if options.get("paths") is not None:
        options["paths"] = list(options["paths"])
        options["path_count"] = len(options["paths"])
    return options_of("uffdwp_restore_options", dict(options, path=path))


def restore(region, path, options):
    made, kept = _options(path, options)
    return answer_of("uffdwp_restore_progress",
                     lambda progress: lib.uffdwp_restore(region._pointer, made, progress))


class Restore(Handle):
    """A lazy restore: the memory may be used at once. As a context manager it is waited for at the end of the block.

    A page that cannot be read, or that was not fetched when the restore is freed, raises SIGBUS when it is touched, which
    ends Python: check() answers with an exception instead.
    """

    _noun = "restore"

    def __init__(self, region, path, options):
        made, kept = _options(path, options)
        out = ffi.new("struct uffdwp_restore **")
        check(lib.uffdwp_restore_begin(region._pointer, made, out))
        super().__init__(out[0], lib.uffdwp_restore_free, region)

    def poll(self):
        """How far it is, without waiting."""
        return answer_of("uffdwp_restore_progress", lib.uffdwp_restore_poll, self._pointer)

    def fileno(self):
        """A descriptor that becomes readable when the restore has ended."""
        return check(lib.uffdwp_restore_fd(self._pointer))

    fd = fileno

    def wait(self, timeout=None):
        """Waits (seconds; None: for ever) until all pages are there, and returns its progress; else raises why.

        TimeoutError: it still runs.
        """
        wait_for(self.fileno(), timeout)
        result = lib.uffdwp_restore_wait(self._pointer, 0, ffi.NULL)
        if result == -errno.ETIMEDOUT and self.poll().state == lib.UFFDWP_RESTORE_STATE_RUNNING:
            raise TimeoutError(errno.ETIMEDOUT, "the restore still runs")
        check(result, self.text() if result < 0 else None)
        return self.poll()

    def check(self, offset, length):
        """Waits until the pages of a range are there; raises what went wrong with the first that cannot be."""
        check(lib.uffdwp_restore_check(self._pointer, offset, length), "")

    def text(self):
        """Why it failed."""
        return read_text(lambda buffer, size: lib.uffdwp_restore_text(self._pointer, buffer, size))

    def abort(self):
        check(lib.uffdwp_restore_abort(self._pointer))

    free = Handle.close

    def __exit__(self, kind, value, trace):
        if self.closed:
            return
        try:
            if kind is None:
                self.wait()
        finally:
            self.close()
