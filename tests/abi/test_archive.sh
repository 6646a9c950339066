#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The static archive exports what the map names and nothing else, and a program that has functions of its own with all of
# the library's inner names links with it and works: neither do the names clash, nor does the library call the program's.
set -euo pipefail

: "${UFFDWP_SOURCE:?run by ctest}" "${UFFDWP_BUILD:?}" "${CC:?}"
if [[ -n ${UFFDWP_SANITIZE:-} ]]; then
	echo "skipped: a library with sanitizers does not link with programs that know nothing of them"
	exit 77
fi

archive=$UFFDWP_BUILD/lib/libuffdwp.a
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-archive.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

globals() {
	nm --extern-only --defined-only --format=posix "$@" 2>/dev/null | awk 'NF >= 3 { print $1 }' | sort -u
}

globals "$archive" >"$scratch/exported"
sed -nE 's/^[[:space:]]*(uffdwp_[a-z_]+);/\1/p' "$UFFDWP_SOURCE/lib/libuffdwp.map" | sort >"$scratch/mapped"
diff "$scratch/mapped" "$scratch/exported" >"$scratch/diff" || {
	echo "the archive exports what the map does not name, or lacks something ($(grep -c '^[<>]' "$scratch/diff") names):"
	head -20 "$scratch/diff"
	exit 1
}

# Each name that one object of the library has for another. Weak and compiler-made names (DW.ref.*) are no functions.
mapfile -t objects < <(find "$UFFDWP_BUILD/lib/CMakeFiles/uffdwp_objects.dir" -name '*.o')
globals "${objects[@]}" | grep -E '^[a-z][a-z0-9_]*$' | grep -v '^uffdwp_' >"$scratch/inner"
count=$(wc -l <"$scratch/inner")
[[ $count -gt 100 ]] || {
	echo "only $count inner names were found in ${#objects[@]} objects: the test does not see the inside"
	exit 1
}
{
	echo '#include <stdio.h>'
	echo '#include <stdlib.h>'
	while read -r name; do
		printf 'void %s(void);\nvoid %s(void)\n{\n\tputs("the library called %s() of the program");\n\texit(1);\n}\n' \
			"$name" "$name" "$name"
	done <"$scratch/inner"
} >"$scratch/names.c"

read -ra libraries <<<"$(pkg-config --libs liburing numa libzstd json-c)"
"$CC" -std=c99 -fno-builtin -I"$UFFDWP_SOURCE/include" "$UFFDWP_SOURCE/tests/consumer/consumer.c" "$scratch/names.c" \
	-o "$scratch/program" "$archive" "${libraries[@]}" -pthread -ldl
status=0
"$scratch/program" "$scratch/program.img" || status=$?
if [[ $status -eq 77 ]]; then
	echo "skipped: no userfaultfd here"
	exit 77
fi
[[ $status -eq 0 ]] && echo "$(wc -l <"$scratch/exported") names exported, $count names of the inside left to the program"
exit "$status"
