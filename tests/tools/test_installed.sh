#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# An installed uffdwp-ctl finds what it preloads, wherever the folder was moved to, and pkg-config names the folder of it and
# of the SQLite extension.
set -euo pipefail

: "${UFFDWP_BUILD:?run by ctest}" "${UFFDWP_CTL:?}"
[[ -x $UFFDWP_CTL ]] || {
	echo "skipped: uffdwp-ctl is not built"
	exit 77
}
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-installed.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
fail() {
	echo "failed: $*"
	exit 1
}

cmake --install "$UFFDWP_BUILD" --prefix "$scratch/first" >"$scratch/log"
mv "$scratch/first" "$scratch/prefix"
pc=$(find "$scratch/prefix" -name uffdwp.pc)
modules=$(PKG_CONFIG_PATH=${pc%/*} pkg-config --variable=moduledir uffdwp)
for name in uffdwp_sqlite.so uffdwp_dirty.so libuffdwp_gc_preload.so; do
	[[ -e $modules/$name ]] || fail "$name is not in $modules"
done

# Documents that a --help names are there.
ctl=$scratch/prefix/bin/uffdwp-ctl
for command in doctor dirty fork; do
	document=$("$ctl" "$command" --help | grep -oE 'share/doc/[^ ,)]+\.md') || fail "$command --help names no document"
	[[ -e $scratch/prefix/$document ]] || fail "$command --help names $document, which is not installed"
done

# 125 and above: it could not even begin. What the kernel refuses is not this test's matter.
status=0
"$ctl" dirty --json="$scratch/json" -- "$(command -v sleep)" 0 >"$scratch/log" 2>&1 || status=$?
grep -E 'the shim|the program uffdwp-dirty' "$scratch/log" && fail "dirty: exit code $status"
[[ -x $scratch/prefix/bin/uffdwp-dirty ]] || fail "uffdwp-dirty is not installed"
for page in uffdwp-dirty.1 uffdwp-ctl-dirty.1; do
	[[ -e $scratch/prefix/share/man/man1/$page ]] || fail "$page is not installed"
done
[[ -e $modules/libuffdwp-fork.so ]] || {
	echo "not tested here: uffdwp-ctl fork: libuffdwp-fork.so is not built"
	exit 0
}
status=0
"$ctl" fork --check -- "$(command -v sleep)" >"$scratch/log" 2>&1 || status=$?
[[ $status -lt 125 ]] || fail "fork: exit code $status: $(cat "$scratch/log")"
echo "uffdwp-ctl dirty and fork find what they preload in $modules"
