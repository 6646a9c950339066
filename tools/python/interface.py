# SPDX-License-Identifier: MIT
"""Makes uffdwp/_interface.py from the library's public headers.

cffi needs the declarations of the functions, structures and enumerations that the package calls. They are read from the
headers, never typed by hand, so they are those of the library that the package is installed beside. No compiler is needed:
the headers are plain C11 without bit fields, packing or conditions other than for C++, which this script takes out. What it
does not understand is an error.

The result is a Python file in cffi's out-of-line ABI form: names and types, and no size or offset, which cffi works out by
the rules of the machine that it runs on. Beside them it holds the numbers that are macros in the headers.

usage: interface.py [--include FOLDER] OUTPUT
"""
import argparse
import os
import re
import subprocess
import sys

HEADERS = ("runtime", "region", "adopt", "snapshot", "view", "child", "restore", "image", "track", "probe")


def read_header(include, name):
    """A header without comments and without what is for C++ only."""
    with open(os.path.join(include, "uffdwp", name + ".h"), encoding="ascii") as file:
        text = file.read()
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"//[^\n]*", " ", text).replace("\\\n", " ")
    return take_out_conditions(text, name)


def take_out_conditions(text, name):
    """Keeps what a C compiler sees. Conditions: include guards, __cplusplus, __GNUC__."""
    lines = []
    kept = []  # for each open condition: does the compiler see it?
    for line in text.split("\n"):
        word = re.match(r"\s*#\s*(\w+)\s*(.*)", line)
        if not word:
            if all(kept):
                lines.append(line)
            continue
        kind, rest = word.group(1), word.group(2).strip()
        if kind in ("if", "ifdef", "ifndef"):
            kept.append(is_seen(kind, rest, name))
        elif kind == "else":
            kept[-1] = not kept[-1]
        elif kind == "endif":
            kept.pop()
        elif kind == "define" and all(kept):
            lines.append(line.strip())
        elif kind not in ("include", "define"):
            raise ValueError("%s.h: what is '%s'?" % (name, line.strip()))
    return "\n".join(lines)


def is_seen(kind, condition, name):
    if kind == "ifndef" and condition.endswith("_H"):
        return True
    if kind == "ifdef" and condition == "__cplusplus":
        return False
    if kind == "if" and condition == "defined(__GNUC__)":
        return True
    raise ValueError("%s.h: a condition that this script does not know: #%s %s" % (name, kind, condition))


def read_macros(text, numbers, texts):
    """Takes #define lines out of the text; numbers and strings are kept."""
    rest = []
    for line in text.split("\n"):
        macro = re.match(r"#define\s+(UFFDWP_\w+)(\(?)\s*(.*)", line)
        if not macro:
            rest.append(line)
            continue
        name, has_arguments, value = macro.group(1), macro.group(2), macro.group(3).strip()
        shift = re.fullmatch(r"\(1u << (\d+)\)", line[macro.end(1):].strip())
        if shift:
            numbers[name] = 1 << int(shift.group(1))
        elif not has_arguments and re.fullmatch(r"\d+", value):
            numbers[name] = int(value)
        elif not has_arguments and re.fullmatch(r'"[^"]*"', value):
            texts[name] = value[1:-1].replace("\\n", "\n")
        elif not (name.endswith(("_H", "_INIT")) or name in ("UFFDWP_EXPORT", "UFFDWP_MUST_CHECK")):
            raise ValueError("a macro that this script does not know: " + line)
    return "\n".join(rest)


def read_headers(include):
    """The declarations as cffi takes them, and the numbers and texts of macros."""
    numbers, texts, declarations = {}, {}, ["typedef int pid_t;"]
    for name in HEADERS:
        text = read_macros(read_header(include, name), numbers, texts)
        exported = len(re.findall(r"\bUFFDWP_EXPORT\b", text))
        text = re.sub(r"\bUFFDWP_(EXPORT|MUST_CHECK)\b", " ", text)
        if len(re.findall(r"\buffdwp_\w+\s*\([^;{}]*\)\s*;", re.sub(r"typedef[^;]*;", "", text))) < exported:
            raise ValueError(name + ".h: a function of it was not understood")
        declarations.append(text)
    with open(os.path.join(include, "uffdwp.h"), encoding="ascii") as file:
        included = set(re.findall(r'#include "uffdwp/(\w+)\.h"', file.read()))
    if included != set(HEADERS):
        raise ValueError("uffdwp.h includes others than this script knows: %s" % sorted(included ^ set(HEADERS)))
    return re.sub(r"\n\s*\n+", "\n", "\n".join(declarations)), numbers, texts


def find_include():
    """UFFDWP_INCLUDE; or where the installed library has its headers; or those of the sources that this is part of."""
    if os.environ.get("UFFDWP_INCLUDE"):
        return os.environ["UFFDWP_INCLUDE"]
    try:
        return subprocess.run(["pkg-config", "--variable=includedir", "uffdwp"], check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, universal_newlines=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    include = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "include")
    if not os.path.exists(os.path.join(include, "uffdwp.h")):
        raise FileNotFoundError("no headers of libuffdwp, and pkg-config knows no uffdwp: install the library first")
    return include


def version_of(include):
    numbers = {}
    read_macros(read_header(include, "runtime"), numbers, {})
    return ".".join(str(numbers["UFFDWP_VERSION_" + part]) for part in ("MAJOR", "MINOR", "PATCH"))


def write_interface(include, output):
    import cffi

    declarations, numbers, texts = read_headers(include)
    ffi = cffi.FFI()
    ffi.cdef(declarations)
    ffi.set_source("_interface", None)
    ffi.emit_python_code(output)
    with open(output, "a", encoding="ascii") as file:
        file.write("library = %r\n" % ("libuffdwp.so.%d" % numbers["UFFDWP_VERSION_MAJOR"]))
        file.write("numbers = %r\ntexts = %r\n" % (numbers, texts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--include", help="the folder that uffdwp.h is in")
    parser.add_argument("output", help="the file that is written")
    arguments = parser.parse_args()
    write_interface(arguments.include or find_include(), arguments.output)


if __name__ == "__main__":
    sys.exit(main())
