# SPDX-License-Identifier: MIT
"""Snapshots.

A callback in Python needs the interpreter's lock. A thread that has that lock and writes to the region waits, where the
pool of pre-images is full, until the callback has taken some: each would wait for the other. So with a callback the policy
is ABORT: a snapshot whose pool is full fails at once (ENOBUFS), and needs a larger pool_bytes.
"""
import errno

from ._job import Job
from ._library import ffi, lib, options_of
from ._memory import check_cut, put_boundary


def _sink_of(function):
    """A callback that takes the snapshot's bytes, called in the snapshot's thread; and where it puts what it raised."""
    raised = []

    def take(user, offset, data, length):
        if not raised:
            try:
                function(offset, ffi.buffer(data, length)[:])
                return 0
            except BaseException as error:  # raised again by wait()
                raised.append(error)
        return -errno.ECANCELED

    return raised, ffi.callback("int(void *, uint64_t, const void *, uint64_t)", take, error=-errno.ECANCELED)


class Snapshot(Job):
    """A snapshot that runs, or has ended. As a context manager it is waited for at the end of the block.

    Options are the fields of struct uffdwp_snapshot_options; bytes where nothing else is said:
      path        a file (or the URI of an export, with sink=SINK_NBD)
      fd          a descriptor: the image is written to it from the first byte to the last
      callback    function(offset, bytes): each page once, in any order, zeros may be left out
      lock        anything with acquire() and release(): taken right before the cut, given back right after it
      flags       SNAPSHOT_*
      parent      the file of the region's last snapshot, which was taken with SNAPSHOT_KEEP: the image is a delta
      compress    with a parent: level of zstd, 1 to 19; 0: none
      length      what the image holds, from the region's start; 0: all
      pool_bytes  bound on memory for pre-images; 0: 64 MiB
      policy      POLICY_*: what writers do where it is full: wait, up to wait_ns (nanoseconds) without progress, or not
      window_max  most pages that one fault preserves, 1 to 64; 0: 16
      rate_bytes  that go to the sink in a second; 0: as fast as it takes them
      arming      ARMING_*
      mode        permission bits of the file: 0o640
      sink        SINK_*; as path, fd or callback say

    region.snapshot_begin("image.delta", parent="image.raw", flags=uffdwp.SNAPSHOT_KEEP, window_max=1)
    """

    _noun = "snapshot"
    _at_exit = True  # a callback must not be called in an interpreter that has ended

    def __init__(self, pointer, region, sink, kept):
        super().__init__(pointer, lib.uffdwp_snapshot_free, region)
        self._raised = sink[0] if sink is not None else []
        self._box.kept = (sink, kept)

    @classmethod
    def _begin(cls, regions, requests):
        boundaries = []
        structs, kept, sinks = ffi.new("struct uffdwp_snapshot_options[]", len(regions)), [], []
        for at, request in enumerate(requests):
            lock = request.pop("lock", None)
            made, more, sink = cls._options(request)
            if lock is not None:
                boundaries.append(put_boundary(made, lock, "int(void *, uint64_t *)"))
            structs[at] = made[0]
            kept.append((made, more))
            sinks.append(sink)
        pointers = ffi.new("struct uffdwp_region *[]", [region._pointer for region in regions])
        out = ffi.new("struct uffdwp_snapshot *[]", len(regions))
        result = lib.uffdwp_snapshot_begin_group(pointers, structs, len(regions), out)
        check_cut(result, boundaries[0] if boundaries else None)
        return [cls(out[at], region, sinks[at], kept[at]) for at, region in enumerate(regions)]

    @staticmethod
    def _options(request):
        callback = request.pop("callback", None)
        sink = None
        made, kept = options_of("uffdwp_snapshot_options", {"sink": lib.UFFDWP_SINK_IMAGE, **request})
        if callback is not None:
            if "policy" in request and request["policy"] != lib.UFFDWP_POLICY_ABORT:
                raise ValueError("with a callback writers cannot wait for the pool: the callback may wait for them; "
                                 "give a larger pool_bytes")
            sink = _sink_of(callback)
            made.sink = lib.UFFDWP_SINK_CALLBACK
            made.policy = lib.UFFDWP_POLICY_ABORT
            made.callback = sink[1]
        elif request.get("fd") is not None:
            made.sink = lib.UFFDWP_SINK_STREAM
        return made, kept, sink

    def _failed(self):
        """An exception of the callback is raised again."""
        if self._raised:
            raise self._raised[0]


def snapshot_begin_group(requests):
    """Snapshots of several regions with one cut: pairs of a region and its options. lock: with the first alone."""
    requests = list(requests)
    return Snapshot._begin([region for region, _ in requests], [dict(options) for _, options in requests])
