#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A stand-in for a process with a control socket: answers as version 1 of the protocol says, with a program's life made
up (faults come, a snapshot goes on), or lies as its argument says.

usage: control_stand_in.py FOLDER [LIE]; it prints its pid when it listens, and ends with its standard input."""

import json
import os
import select
import socket
import sys
import threading
import time

LIE = sys.argv[2] if len(sys.argv) > 2 else "none"
PAGE = 4096
PAGES = 65536
BEGIN = time.monotonic()


def now_ns():
    return time.monotonic_ns()


class Process:
    """Two regions; snapshots of the first take SNAPSHOT_S seconds, and forever where "long" is in their name."""

    SNAPSHOT_S = float(os.environ.get("STAND_IN_SNAPSHOT_S", "1"))

    def __init__(self):
        self.number = 0
        self.running = None  # {number, path, begin}
        self.ended = []
        self.armed = PAGES
        self.cuts = {"forks": 3, "fork": 1 << 30}.get(LIE, 0)  # requests that meet one
        if LIE == "own":  # a snapshot of the program's own, which has ended
            self.running = {"number": 7, "path": None, "begin": time.monotonic(), "state": "committed", "error": None,
                            "text": "", "end": time.monotonic()}

    def list(self):
        regions = [
            {"region": 1, "runtime": 1, "memory": "shmem", "mechanism": "marker", "delivery": "thread",
             "address": "0x7f0000000000", "length": PAGES * PAGE, "capacity": 2 * PAGES * PAGE, "page": PAGE,
             "state": "live", "dead": None, "mappers": [], "children": [4711],
             "snapshot": self.running is not None, "restore": False, "tracks": 2, "views": 1},
            {"region": 2, "runtime": 1, "memory": "anonymous", "mechanism": "rearm", "delivery": "inline",
             "address": "0x7f1000000000", "length": 16 * PAGE, "page": PAGE, "state": "dead",
             "dead": "it was unmapped outside of the library", "mappers": [], "children": [], "snapshot": False,
             "restore": False, "tracks": 0, "views": 0},
        ]
        return {"pid": os.getpid(), "program": "bank", "version": "0.1.0",
                "runtimes": [{"runtime": 1, "access": "syscall", "uring": True, "handlers": [{"tid": 4712, "cpu": 1}],
                              "open_ns": 1}],
                "regions": regions}

    def progress(self, snapshot):
        elapsed = snapshot.get("end", time.monotonic()) - snapshot["begin"]
        share = min(elapsed / self.takes(snapshot), 1)
        saved = int(PAGES * share)
        faults, written = saved // 4, saved
        if LIE == "preserve":  # most of it is preserved for writers, and a tenth written
            saved, faults, written = PAGES * 7 // 10, PAGES * 6 // 10, PAGES // 10
        return {"snapshot": snapshot["number"], "region": 1, "path": snapshot["path"], "by": "control" if snapshot["path"] else "program",
                "state": snapshot["state"], "error": snapshot["error"], "text": snapshot["text"],
                "length_bytes": PAGES * PAGE, "pages_total": PAGES, "pages_fault": faults, "pages_prepare": 0,
                "pages_sweep": saved - faults, "pages_hole": 0, "faults": saved // 8, "waits": 0,
                "pool_peak_bytes": 40 << 20, "bytes_written": written * PAGE, "pause_ns": 1234567,
                "elapsed_ns": int(elapsed * 1e9), "direct": 1, "uring": 1, "arming": 1}

    def takes(self, snapshot):
        return 1e6 if not snapshot["path"] or "long" in snapshot["path"] else self.SNAPSHOT_S

    def advance(self):
        running = self.running
        if running and time.monotonic() - running["begin"] >= self.takes(running):
            if "nospace" in running["path"]:
                self.end("failed", "ENOSPC", "writing the image: no space left: free some, and begin again")
            else:
                with open(running["path"], "w", encoding="utf-8") as out:
                    out.write("image\n")
                self.end("committed", None, "")

    def end(self, state, error, text):
        self.running.update(state=state, error=error, text=text, end=time.monotonic())
        self.ended = (self.ended + [self.running])[-16:]
        self.running = None

    def histogram(self, factor):
        age = time.monotonic() - BEGIN
        counts = [int(age * n * factor) for n in (1000, 200, 10, 1)]
        ends = [16384, 32768, 131072, 1048576]
        buckets = [[end, count] for end, count in zip(ends, counts) if count]
        return {"count": sum(counts), "sum_ns": sum(e * c for e, c in zip(ends, counts)), "max_ns": 1000000,
                "p50_ns": 16384, "p90_ns": 32768, "p99_ns": 131072, "p999_ns": 1000000, "buckets": buckets}

    def stat(self, region):
        self.advance()
        faults = int((time.monotonic() - BEGIN) * 1211)
        first = {"region": 1, "faults": faults, "faults_repeated": 3, "pages_disarmed": faults, "events_remove": 1,
                 "events_remap": 0, "events_unmap": 0, "pages_lost": 12, "snapshots": self.number,
                 "lost_by": {"hole": 3, "swap": 9, "zap": 0, "unmapped": 0, "unknown": 0}, "pages_rearmed": 12,
                 "pages_filled": 7, "armed_pages": self.armed, "dirty_pages": 123,
                 "pool": {"bytes": 64 << 20, "used_bytes": 12 << 20, "peak_bytes": 40 << 20} if self.running else None,
                 "snapshot": self.progress(self.running) if self.running else None,
                 "restore": {"state": "running", "pages_total": 1000, "pages_done": 250, "pages_failed": 0,
                             "elapsed_ns": 1000000000},
                 "latency": {"thread": self.histogram(1), "inline": {"count": 0, "sum_ns": 0, "max_ns": 0, "p50_ns": 0,
                             "p90_ns": 0, "p99_ns": 0, "p999_ns": 0, "buckets": []}},
                 "threads": [{"tid": 4712, "faults": faults}]}
        if LIE == "preserve":
            first["dirty_pages"] = PAGES // 5
            if self.running:
                first["pool"]["used_bytes"] = PAGES * 6 // 10 * PAGE
        second = dict(first, region=2, snapshot=None, pool=None, restore=None, dirty_pages=None, threads=[])
        regions = [first, second]
        if region is not None:
            regions = [r for r in regions if r["region"] == region]
            if not regions:
                raise Refusal("ENOENT", "there is no such region")
        return {"now_ns": now_ns(), "regions": regions, "ended": [self.progress(s) for s in self.ended]}

    def snapshot(self, request):
        if request["region"] != 1:
            raise Refusal("ENOENT", "there is no such region")
        if self.running:
            raise Refusal("EBUSY", "a snapshot of this region has not been freed: uffdwp_snapshot_free()")
        if self.cuts:
            self.cuts -= 1
            raise Refusal("EBUSY", "a view or a child of this region is just being made")
        if not request["path"].startswith("/"):
            raise Refusal("EINVAL", "path must be absolute")
        self.number += 1
        self.running = {"number": self.number, "path": request["path"], "begin": time.monotonic(), "state": "running",
                        "error": None, "text": ""}
        with open(request["path"] + ".request", "w", encoding="utf-8") as out:
            json.dump(request, out)
        return {"snapshot": self.number, "pause_ns": 1234567, "begin_ns": 2345678}

    def abort(self, request):
        if not self.running or request.get("snapshot") != self.running["number"]:
            raise Refusal("ENODATA", "no such snapshot runs")
        self.end("failed", "ECANCELED", "it was aborted")
        return {}

    def arm(self, request, pages):
        length = request["length"] or PAGES * PAGE
        if request["offset"] + length > PAGES * PAGE:
            raise Refusal("ERANGE", "the range is not of the region: it has 256 MiB")
        self.armed = pages if not request["length"] else self.armed
        return {"pages": length // PAGE if pages else 0}


class Refusal(Exception):
    pass


PROCESS = Process()
LOCK = threading.Lock()


def answer(request):
    """The honest answer."""
    what = request["do"]
    if what == "hello":
        return {"pid": os.getpid(), "program": "bank", "version": "0.1.0", "schema": 1, "allowed": ["look", "snapshot"]}
    if what == "list":
        PROCESS.advance()
        return PROCESS.list()
    if what == "stat":
        return PROCESS.stat(request.get("region"))
    if what == "snapshot":
        return PROCESS.snapshot(request)
    if what == "abort":
        return PROCESS.abort(request)
    if what in ("audit", "arm", "disarm") and request["region"] not in (1, 2):
        raise Refusal("ENOENT", "there is no such region")
    if what == "audit":
        return {"pages_armed": 65536, "pages_lost": 2, "pages_rearmed": 2}
    if what in ("arm", "disarm"):
        return PROCESS.arm(request, PAGES if what == "arm" else 0)
    if what == "trace":
        if request.get("region") not in (None, 1, 2):
            raise Refusal("ENOENT", "there is no such region")
        return {}
    raise Refusal("EINVAL", "there is no such request")


def lie(text, request):
    """What a liar sends for an honest line."""
    line = text.encode()
    evil = json.loads(text)
    if LIE == "half":
        return line[: len(line) // 2]
    if LIE == "megabyte":
        return b"x" * (1 << 20) + b"\n"
    if LIE == "endless":
        return b"x" * (40 << 20)
    if LIE == "deep":
        return b'{"v":1,"ok":true,"id":1,"a":' + b"[" * 100000 + b"]" * 100000 + b"}\n"
    if LIE == "objects":
        return b'{"v":1,"ok":true,"id":1,"a":[' + b"{}," * 4000000 + b"{}]}\n"
    if LIE == "many":
        evil["regions"] = [dict(evil["regions"][0], region=i, latency=None, lost_by={}, pool=None, snapshot=None,
                                restore=None, threads=[]) for i in range(20000)] if "regions" in evil else []
    if LIE == "number":
        return b"42\n"
    if LIE == "nul":
        return line[:-2] + b"\0}\n"
    if LIE == "types":
        evil["regions"] = "many"
    if LIE == "row":
        evil["regions"] = [7]
    if LIE == "missing":
        for region in evil.get("regions", []):
            region.pop("memory", None)
            region.pop("faults", None)
    if LIE == "range":
        return text.replace("268435456", "99999999999999999999999").replace('"faults": ', '"faults": -').encode() + b"\n"
    if LIE == "float":
        return text.replace("268435456", "1e300").replace('"faults": ', '"faults": 0.').encode() + b"\n"
    if LIE == "id":
        evil["id"] = 12345678
    if LIE == "version":
        evil["v"] = 2
    if LIE == "noversion":
        evil.pop("v")
    if LIE == "order" and "regions" in evil:
        evil["regions"] = evil["regions"][::-1] + evil["regions"]
    if LIE == "refusal":
        evil = {"v": 1, "id": request["id"], "ok": False, "error": 7}
    if LIE == "evil":
        evil["program"] = "p\x1b[31m\u202e\u0007\nq\u009b"
        evil["\x1b[2Jkey"] = "\x1b[2J"
        for region in evil.get("regions", []):
            region["memory"] = "m\x1b]0;x\x07"
            region["dead"] = "\x1b[31mBYTES"
            region["lost_by"] = {"\x1b[31m\"hole\\": 7}
        return json.dumps(evil).encode().replace(b"BYTES", b"\xff\xfe\xc0\x80") + b"\n"
    if LIE == "no":
        evil = {"v": 1, "id": request["id"], "ok": False, "error": "E\x1b[31m", "text": "no\x1b[2J, and BYTES"}
        return json.dumps(evil).encode().replace(b"BYTES", b"\xff") + b"\n"
    return json.dumps(evil).encode() + b"\n"


def trace(client, request):
    """Lines of a trace until the time is up or the client goes."""
    end = time.monotonic() + request.get("seconds", 3600)
    sent = 0
    tick = {"last": False}
    while not tick["last"]:
        for i in range(0 if LIE in ("quiet", "full") else 50):
            page = (sent * 7 + i) % 256
            event = {"v": 1, "event": "write", "ns": now_ns(), "region": 1, "offset": page * PAGE,
                     "address": hex(0x7F0000000000 + page * PAGE), "tid": os.getpid(), "kind": "write"}
            if LIE == "evil":
                event["kind"] = "w\x1b[31m\u202e"
            if LIE == "types":
                event["offset"] = "far"
            client.sendall(json.dumps(event).encode() + b"\n")
        sent += 0 if LIE in ("quiet", "full") else 50
        seen = 1000 if LIE == "full" else 4 * sent
        tick = {"v": 1, "event": "tick", "ns": now_ns(), "seen": seen, "sent": sent, "dropped": 2 * sent,
                "last": time.monotonic() >= end}
        client.sendall(json.dumps(tick).encode() + b"\n")
        if select.select([client], [], [], 0.1)[0]:
            return


def serve(client):
    try:
        serve_lines(client)
    except (BrokenPipeError, ConnectionResetError):
        pass
    client.close()


def serve_lines(client):
    lines = client.makefile("rb")
    for line in lines:
        request = json.loads(line)
        if LIE == "unfinished":
            client.sendall(b'{"v":1,')
        if LIE in ("silent", "unfinished"):
            continue
        if LIE == "hangup":
            return
        try:
            with LOCK:
                result = {"v": 1, "id": request["id"], "ok": True, **answer(request)}
        except Refusal as refusal:
            result = {"v": 1, "id": request["id"], "ok": False, "error": refusal.args[0], "text": refusal.args[1]}
        # A liar in a trace is honest before; in a quiet one nothing is written.
        honest = LIE in ("none", "quiet", "full", "preserve", "forks", "fork", "own", "drops") or (LIE in ("evil", "types") and request["do"] in ("trace", "hello") and "trace" in sys.argv)
        client.sendall(json.dumps(result).encode() + b"\n" if honest else lie(json.dumps(result), request))
        if LIE == "half":
            time.sleep(0.05)
            return
        if request["do"] == "trace" and result["ok"]:
            trace(client, request)


def main():
    folder = os.path.join(sys.argv[1], "uffdwp")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{os.getpid()}.sock")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen(16)
    if LIE == "drops":  # gives up its user, as servers do
        os.setuid(65534)
    print(os.getpid(), flush=True)
    clients = [server, sys.stdin]
    while True:
        ready, _, _ = select.select(clients, [], [])
        if sys.stdin in ready and not sys.stdin.readline():
            break
        if server in ready:
            threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()
    if LIE != "leftover":
        os.unlink(path)


main()
