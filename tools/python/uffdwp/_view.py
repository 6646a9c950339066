# SPDX-License-Identifier: MIT
"""Views."""
from ._library import Handle, address_of, answer_of, ffi, lib, options_of
from ._memory import Exports, check_cut, put_boundary


class View(Handle):
    """The region as it was at one instant, as a buffer that is only read."""

    _noun = "view"

    def __init__(self, region, lock):
        made, kept = options_of("uffdwp_view_options", {})
        boundary = put_boundary(made, lock, "int(void *)") if lock is not None else None
        out = ffi.new("struct uffdwp_view **")
        check_cut(lib.uffdwp_view_open(region._pointer, made, out), boundary)
        super().__init__(out[0], lib.uffdwp_view_close, region)
        self._exports = Exports(self, self._noun)

    @property
    def buffer(self):
        """All of it, as a memoryview of bytes that cannot be written. It keeps the view open."""
        return self._exports.export(self._where).toreadonly()

    def _where(self):
        return address_of(lib.uffdwp_view_base(self._pointer)), self.info().length_bytes

    def info(self):
        return answer_of("uffdwp_view_info", lib.uffdwp_view_info, self._pointer)

    def close(self):
        """Closes it. BufferError while memoryviews or arrays of it are in use."""
        self._exports.close(super().close)
