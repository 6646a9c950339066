# SPDX-License-Identifier: MIT
"""What all parts of the package share: the loaded library, errors, option and answer structures, and what is closed when.

A box owns a handle of the library. It is closed by close() of its Python object, or when that object is collected, but
never before the boxes that were made of it: a region's runtime stays open until the region is closed, in whatever order
Python collects them. In a child of fork() the library refuses (ECHILD), and the boxes do nothing.
"""
import os
import threading
import types
import weakref

from . import _interface

ffi = _interface.ffi
try:
    lib = ffi.dlopen(_interface.library)
except OSError as error:
    raise ImportError("%s; install libuffdwp, or name its folder in LD_LIBRARY_PATH" % error) from None


class Error(OSError):
    """What the library answered: errno, and as strerror its text, which says what was wrong and what to do."""


def error_text():
    """The text of the last call that failed in this thread."""
    return read_text(lambda buffer, size: lib.uffdwp_error_text(buffer, size))


def read_text(call):
    size = call(ffi.NULL, 0) + 1
    buffer = ffi.new("char[]", size)
    call(buffer, size)
    return ffi.string(buffer).decode("utf-8", "replace")


def check(result, text=None):
    """Passes a result on, or raises it. text: for calls that form none of their own, or have it elsewhere."""
    if result < 0:
        raise Error(-result, (error_text() if text is None else text) or os.strerror(-result))
    return result


# ---- structures ----

def options_of(struct, fields):
    """An option structure with the given fields, and what has to live as long as it does."""
    options = ffi.new("struct %s *" % struct)
    options.sz = ffi.sizeof(options[0])
    known = dict(ffi.typeof(options[0]).fields)
    kept = []
    for name, value in fields.items():
        if name not in known or name in ("sz", "reserved"):
            raise TypeError("%s has no option %r; it has %s" % (
                struct, name, ", ".join(sorted(set(known) - {"sz", "reserved"}))))
        if value is not None:
            setattr(options, name, to_field(known[name].type, value, kept))
    return options, kept


def to_field(field, value, kept):
    if field.kind != "pointer":
        return value
    if field.item.kind == "primitive" and field.item.cname == "char":
        made = ffi.new("char[]", os.fsencode(value))
    elif field.item.kind == "pointer" and field.item.item.cname == "char":
        texts = [ffi.new("char[]", os.fsencode(one)) for one in value]
        kept.append(texts)
        made = ffi.new("char *[]", texts)
    elif isinstance(value, int):
        made = ffi.cast(field, value)
    else:
        return value
    kept.append(made)
    return made


def answer_of(struct, call, *arguments):
    """Has a call fill a structure of answers, and returns its fields by their names."""
    answer = ffi.new("struct %s *" % struct)
    answer.sz = ffi.sizeof(answer[0])
    check(call(*arguments, answer))
    return facts_of(answer[0])


def facts_of(struct):
    facts = types.SimpleNamespace()
    for name, field in ffi.typeof(struct).fields:
        if name not in ("sz", "reserved"):
            setattr(facts, name, to_fact(field.type, getattr(struct, name)))
    return facts


def to_fact(field, value):
    if field.kind == "struct":
        return facts_of(value)
    if field.kind == "array" and field.item.cname == "char":
        return ffi.string(value).decode("utf-8", "replace")
    if field.kind == "array":
        return list(value)
    if field.kind == "pointer" and field.item.cname == "char":
        return os.fsdecode(ffi.string(value)) if value else None
    if field.kind == "pointer":
        return int(ffi.cast("uintptr_t", value))
    return value


def address_of(pointer):
    return int(ffi.cast("uintptr_t", pointer))


# ---- what is closed when ----

boxes_lock = threading.RLock()  # taken by finalizers, too, which run anywhere


def boxes_lock_anew():
    global boxes_lock
    boxes_lock = threading.RLock()


os.register_at_fork(after_in_child=boxes_lock_anew)


class Box:
    """A handle, how it is closed, and the box that has to stay open until then."""

    def __init__(self, pointer, close, parent=None):
        self.pointer = pointer
        self.kept = None  # what the library uses until it is closed: callbacks, memory of other objects
        self._close = close
        self._parent = parent
        self._children = 0
        self._is_dropped = False
        if parent is not None:
            with boxes_lock:
                parent._children += 1

    def close(self):
        with boxes_lock:
            pointer, self.pointer = self.pointer, None
        if pointer is None:
            return
        result = self._close(pointer)
        if result < 0:
            self.pointer = pointer
            check(result)
        self.kept = None
        if self._parent is not None:
            self._parent.forget_child()

    def forget_child(self):
        with boxes_lock:
            self._children -= 1
            is_last = self._is_dropped and self._children == 0
        if is_last:
            self.drop()

    def drop(self):
        """Its object is gone."""
        with boxes_lock:
            self._is_dropped = True
            if self._children:
                return
        try:
            self.close()
        except Error:
            pass  # a child of fork(), or something that the program closes never


class Handle:
    """An object that stands for a handle of the library."""

    _noun = "handle"
    _at_exit = False  # closed at the interpreter's exit; else it is left to the end of the process

    def __init__(self, pointer, close, parent=None):
        self._box = Box(pointer, close, parent._box if parent is not None else None)
        self._parent = parent
        self._finalizer = weakref.finalize(self, self._box.drop)
        self._finalizer.atexit = self._at_exit

    @property
    def closed(self):
        return self._box.pointer is None

    @property
    def _pointer(self):
        pointer = self._box.pointer
        if pointer is None:
            raise ValueError("this %s is closed" % self._noun)
        return pointer

    def close(self):
        """Closes it; does nothing if it is closed."""
        self._box.close()

    def __enter__(self):
        self._pointer
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.close()
        except (Error, BufferError):
            if kind is None:  # what is raised already says more
                raise

    def __repr__(self):
        return "<uffdwp.%s%s>" % (type(self).__name__, " closed" if self.closed else "")
