#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads Prometheus' text exposition format 0.0.4 from standard input as its documentation has it, and refuses what
Prometheus would refuse, or what its conventions forbid: names, labels, HELP and TYPE before the samples of a name and once
each, samples of a name together, no series twice, counters that end in _total, histograms that add up."""

import re
import sys

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)?\}})? (-?[0-9.eE+-]+|[+-]Inf|NaN)$")


def fail(number, why):
    sys.exit(f"line {number}: {why}")


def family_of(name, types):
    for suffix in ("_bucket", "_sum", "_count"):
        base = name[: -len(suffix)]
        if name.endswith(suffix) and types.get(base) == "histogram":
            return base
    return name


def check_histogram(name, series):
    """series: labels without le -> {suffix: value or [(le, value)]}"""
    for labels, parts in series.items():
        bounds = [float(le) for le, _ in parts["_bucket"]]
        counts = [value for _, value in parts["_bucket"]]
        assert bounds == sorted(set(bounds)), f"{name}{labels}: le does not ascend"
        assert bounds[-1] == float("inf"), f"{name}{labels}: there is no le=\"+Inf\""
        assert counts == sorted(counts), f"{name}{labels}: buckets are not cumulative"
        assert counts[-1] == parts["_count"], f"{name}{labels}: +Inf is not the count"
        assert parts["_sum"] >= 0, f"{name}{labels}: a sum below 0"


def main():
    helps, types, seen, done = set(), {}, set(), set()
    histograms, current, samples = {}, None, 0
    for number, line in enumerate(sys.stdin.buffer.read().decode("utf-8").split("\n")[:-1], 1):
        if line.startswith("# "):
            word, name, rest = (line[2:].split(" ", 2) + [""])[:3]
            if word == "HELP":
                if name in helps or not rest:
                    fail(number, f"HELP of {name} twice, or empty")
                helps.add(name)
            elif word == "TYPE":
                if name in types or rest not in ("counter", "gauge", "histogram"):
                    fail(number, f"TYPE of {name} twice, or unknown")
                types[name] = rest
            else:
                fail(number, "a comment of no kind")
            if current != name:
                if name in done:
                    fail(number, f"{name} comes back")
                done.add(current)
                current = name
            continue
        match = SAMPLE.match(line)
        if not match:
            fail(number, f"no sample: {line!r}")
        name, labels, value = match.groups()
        family = family_of(name, types)
        if family != current or family not in helps or family not in types:
            fail(number, f"{name} stands apart from its HELP and TYPE")
        if not family.startswith("uffdwp_"):
            fail(number, f"{family} is not ours")
        if (types[family] == "counter") != family.endswith("_total"):
            fail(number, f"{family}: counters, and only they, end in _total")
        if (name, labels) in seen:
            fail(number, f"{name}{{{labels}}} twice")
        seen.add((name, labels))
        samples += 1
        if types[family] == "histogram":
            others, bound = labels, None
            if name.endswith("_bucket"):
                others, bound = re.fullmatch(r'(.*),le="([^"]*)"', labels).groups()
            parts = histograms.setdefault(family, {}).setdefault(others, {"_bucket": []})
            if bound is not None:
                parts["_bucket"].append((bound.replace("+Inf", "inf"), float(value)))
            else:
                parts[name[len(family):]] = float(value)
    for family, series in histograms.items():
        check_histogram(family, series)
    print(f"{samples} samples of {len(types)} names, {len(histograms)} histograms")


main()
