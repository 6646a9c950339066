# SPDX-License-Identifier: MIT
"""Memory of the library as Python buffers, that live as long as any object uses them.

The memory is exported by an object of ctypes, of which the package keeps a weak reference only. A memoryview of it, a slice
of that, or a numpy array over any of them keeps the exporting object alive, and it keeps the region or view. So the weak
reference is dead exactly when the memory may be unmapped.
"""
import ctypes
import errno
import threading
import weakref

from ._library import check, ffi


class Exports:
    def __init__(self, owner, noun):
        self._owner = weakref.ref(owner)
        self._noun = noun
        self._alive = {}
        self._lock = threading.Lock()

    def export(self, where):
        """A writable memoryview of bytes. where(): the address and the length, or an exception if it is closed."""
        with self._lock:
            return self._export(*where())

    def _export(self, address, length):
        reference = self._alive.get((address, length))
        exporter = reference() if reference is not None else None
        if exporter is None:
            kind = type("Memory", (ctypes.c_ubyte * length,), {})
            exporter = kind.from_address(address)
            exporter.owner = self._owner()
            self._alive[address, length] = weakref.ref(exporter)
        return memoryview(exporter).cast("B")

    def close(self, close):
        """Closes the memory's owner, if nothing uses the memory; nothing can begin to use it meanwhile."""
        with self._lock:
            if any(reference() is not None for reference in self._alive.values()):
                raise BufferError("buffers of this %s are in use: delete the memoryviews and arrays of it before it is closed"
                                  % self._noun)
            close()
            self._alive.clear()


def range_of(memory, length):
    """Where the bytes of a writable buffer, or of an address and a length, are; and what keeps them there."""
    if isinstance(memory, int):
        if length is None:
            raise TypeError("an address needs a length")
        return memory, length, None
    kept = ffi.from_buffer("char[]", memory, require_writable=True)
    if length is not None and length > len(kept):
        raise ValueError("the buffer has %d bytes, not %d" % (len(kept), length))
    return int(ffi.cast("uintptr_t", kept)), len(kept) if length is None else length, kept


def put_boundary(options, lock, signature):
    """A lock of the caller's as cut_enter and cut_leave: taken right before the cut, given back right after it.

    What is returned has to live during the call; its first item is what the lock raised, if it did. No object here refers
    to itself in a circle, so all of it, and what the lock keeps, is freed at once.
    """
    raised = []

    def enter(*_):
        try:
            lock.acquire()
            return 0
        except BaseException as error:
            raised.append(error)
            return -errno.ECANCELED

    def leave(_):  # what it raises is printed: the cut is made
        lock.release()

    callbacks = ffi.callback(signature, enter, error=-errno.ECANCELED), ffi.callback("void(void *)", leave)
    options.cut_enter, options.cut_leave = callbacks
    return raised, callbacks


def check_cut(result, boundary):
    """As check(), but what the caller's lock raised is raised again."""
    if result < 0 and boundary is not None and boundary[0]:
        raise boundary[0][0]
    return check(result)
