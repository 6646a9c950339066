#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs a program in a terminal of its own, types, and prints what came.

usage: in_terminal.py ROWSxCOLUMNS [STEP]... -- PROGRAM [ARGUMENT]...

Steps, each after what came since the one before: wait:TEXT waits until that text has come; type:KEYS; size:ROWSxCOLUMNS;
signal:NUMBER to the program; stopped: waits until it is. In the end the program must end by itself. What came is printed
with escape sequences as they are, and a last line: "ended CODE, the terminal is as it was" or "... is not as it was"."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

LIMIT_S = 100


def set_size(fd, text):
    rows, columns = text.split("x")
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", int(rows), int(columns), 0, 0))


def main():
    split = sys.argv.index("--")
    steps, command = sys.argv[2:split], sys.argv[split + 1:]
    master, slave = pty.openpty()
    set_size(slave, sys.argv[1])
    before = termios.tcgetattr(slave)
    program = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    seen, since = b"", b""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        while steps:
            what, _, value = steps[0].partition(":")
            if what == "wait":
                before_it, found, after_it = since.partition(value.encode())
                if not found:
                    break
                since = after_it
            elif what == "stopped":
                with open(f"/proc/{program.pid}/stat", encoding="utf-8") as stat:
                    if stat.read().rpartition(")")[2].split()[0] != "T":
                        break
            elif what == "type":
                os.write(master, value.encode().decode("unicode_escape").encode())
            elif what == "size":
                set_size(master, value)
            elif what == "signal":
                os.kill(program.pid, int(value))
            steps.pop(0)
        if select.select([master], [], [], 0.05)[0]:
            try:
                more = os.read(master, 65536)
            except OSError:
                more = b""
            seen += more
            since += more
            if more:
                continue
        if program.poll() is not None:
            break
    else:
        program.kill()
        sys.stdout.buffer.write(seen)
        sys.exit(f"it does not end, or these were waited for in vain: {steps}")
    same = termios.tcgetattr(slave) == before
    sys.stdout.buffer.write(seen)
    print(f"\nended {program.returncode}, the terminal is {'' if same else 'not '}as it was")


main()
