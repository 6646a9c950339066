# SPDX-License-Identifier: MIT
"""What snapshots and lazy restores have in common: they run, are waited for, and end."""
import errno
import select

from ._library import Handle, answer_of, check, ffi, lib, read_text


def _wait_for(fd, timeout):
    """Waits for a descriptor as Python does: signals are handled meanwhile."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(None if timeout is None else max(0, int(timeout * 1000)))


class Job(Handle):
    """Calls are uffdwp_<noun>_<call>(), states UFFDWP_<NOUN>_STATE_*. As a context manager it is waited for at the end of
    the block."""

    def _call(self, name):
        return getattr(lib, "uffdwp_%s_%s" % (self._noun, name))

    def _failed(self):
        """Raises what says more than the library's text, if there is something."""

    def poll(self):
        """How far it is, without waiting."""
        return answer_of("uffdwp_%s_progress" % self._noun, self._call("poll"), self._pointer)

    def fileno(self):
        """A descriptor that becomes readable when it has ended, for select, selectors and asyncio."""
        return check(self._call("fd")(self._pointer))

    fd = fileno

    def wait(self, timeout=None):
        """Waits (seconds; None: for ever) until it has ended well, and returns its progress; else raises why.

        TimeoutError: it still runs. Ctrl-C ends the wait, not what is waited for.
        """
        _wait_for(self.fileno(), timeout)
        result = self._call("wait")(self._pointer, 0, ffi.NULL)
        running = getattr(lib, "UFFDWP_%s_STATE_RUNNING" % self._noun.upper())
        if result == -errno.ETIMEDOUT and self.poll().state == running:
            raise TimeoutError(errno.ETIMEDOUT, "the %s still runs" % self._noun)
        if result < 0:
            self._failed()
        check(result, self.text() if result < 0 else None)
        return self.poll()

    def text(self):
        """Why it failed."""
        return read_text(lambda buffer, size: self._call("text")(self._pointer, buffer, size))

    def abort(self):
        check(self._call("abort")(self._pointer))

    free = Handle.close

    def __exit__(self, kind, value, trace):
        if self.closed:
            return
        try:
            if kind is None:
                self.wait()
        finally:
            self.close()
