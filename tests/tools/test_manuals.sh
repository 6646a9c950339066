#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The manuals of the programs have the options of --help, and no others, each as --help writes it; and each environment
# variable of ours that the programs read.
set -euo pipefail

: "${UFFDWP_SOURCE:?run by ctest}" "${UFFDWP_CTL:?}" "${UFFDWP_BENCH:?}"
if [[ ! -x $UFFDWP_CTL ]]; then
	echo "skipped: uffdwp-ctl was not built (UFFDWP_TOOLS?)"
	exit 77
fi
export LC_ALL=C.UTF-8
manuals=$UFFDWP_SOURCE/tools/uffdwp-ctl

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# Options of a --help, a line each: "-o, --output=FILE".
helped() {
	timeout 100 "$@" --help | sed -nE 's/^ {2,6}((-., )?--[a-z-]+(=[^ ]+)?)( .*)?$/\1/p' | sort
}

# The same of a manual, of the parts of OPTIONS (".SS") that are named, or of all.
documented() {
	local page=$1
	shift
	awk -v parts="|$(printf '%s|' "$@")" '
		/^\.SH/ { options = $2 == "OPTIONS"; part = "" }
		/^\.SS/ { part = substr($0, 5) }
		options && after == ".TP" && (part == "" || index(parts, "|" part "|"))
		{ after = $0 }' "$page" |
		sed -nE 's/^\.BR? //; s/\\f[A-Z]//g; s/\\-/-/g; s/ ?" ?//g; s/,(--)/, \1/; s/ =/=/; /^-/p' | sort
}

# compare PAGE PART... -- COMMAND...
compare() {
	local page=$1 parts=()
	shift
	while [[ $1 != -- ]]; do
		parts+=("$1")
		shift
	done
	shift
	[[ $(helped "$@" | wc -l) -ge 2 ]] || fail "$*: --help names no options"
	diff <(helped "$@") <(documented "$page" "${parts[@]}") >&2 || fail "$* --help (<) and ${page##*/} (>) differ"
}

compare "$manuals/uffdwp-ctl.1" -- "$UFFDWP_CTL"
compare "$manuals/uffdwp-ctl.1" -- "$UFFDWP_CTL" version
dirty=$UFFDWP_SOURCE/tools/dirty
compare "$dirty/uffdwp-dirty.1" -- "$UFFDWP_CTL" dirty
compare "$dirty/uffdwp-dirty.1" -- "${UFFDWP_CTL%/*}/uffdwp-dirty"
[[ $(<"$dirty/uffdwp-ctl-dirty.1") == ".so man1/uffdwp-dirty.1" ]] || fail "uffdwp-ctl-dirty(1) is not uffdwp-dirty(1)"
for command in abort arm audit disarm doctor fork image list metrics snapshot stat trace watch; do
	compare "$manuals/uffdwp-ctl-$command.1" -- "$UFFDWP_CTL" "$command"
done
for command in abort arm audit dirty disarm doctor fork image list metrics snapshot stat trace watch; do
	grep -q "^\.BR uffdwp\\\\-ctl\\\\-$command (1)" "$manuals/uffdwp-ctl.1" || fail "uffdwp-ctl(1) does not name $command"
done
if [[ -x $UFFDWP_BENCH ]]; then
	mapfile -t questions < <("$UFFDWP_BENCH" --help | sed -nE '/^Questions:/,/^$/s/^  ([a-z]+) .*/\1/p')
	[[ ${#questions[@]} -ge 8 ]] || fail "only ${#questions[@]} questions"
	for question in "${questions[@]}"; do
		compare "$UFFDWP_SOURCE/bench/uffdwp-bench.1" "All questions" "$question" -- "$UFFDWP_BENCH" "$question"
	done
else
	echo "not tested here: uffdwp-bench was not built"
fi

# Variables: those of the library, of the command, and of libuffdwp-fork.so.
for name in $(grep -rhoE 'getenv\("(UFFDWP|NO)_[A-Z_]+"\)' "$UFFDWP_SOURCE/lib" "$manuals" "$dirty" --include='*.c' |
	grep -oE '[A-Z_]{4,}' | sort -u) \
	$(sed -nE 's/^ \* (UFFDWP_FORK_[A-Z]+)=.*/\1/p' "$UFFDWP_SOURCE/tools/fork/settings.h"); do
	grep -qE "^\.B $name\$" "$manuals"/*.1 || fail "no manual names $name"
done
echo "manuals: the options are those of --help"
