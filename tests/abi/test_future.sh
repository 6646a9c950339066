#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A program that was built from today's headers runs with today's library, and with one whose structures all have one more
# field and whose enumerations all have one more member.
set -euo pipefail

: "${UFFDWP_SOURCE:?run by ctest}" "${UFFDWP_BUILD:?}"
if [[ -n ${UFFDWP_SANITIZE:-} ]]; then
	echo "skipped: the later library is built without sanitizers"
	exit 77
fi
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-future.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# The headers of the later release are what they are meant to be: else the test would prove nothing.
structs=$(cat "$UFFDWP_SOURCE"/include/uffdwp/*.h | grep -cE '^	size_t sz;')
enums=$(cat "$UFFDWP_SOURCE"/include/uffdwp/*.h | grep -cE '^enum ')
fields=$(cat "$UFFDWP_BUILD"/tests/abi/include/uffdwp/*.h | grep -cE '^	uint64_t added_later;')
members=$(cat "$UFFDWP_BUILD"/tests/abi/include/uffdwp/*.h | grep -cE '_added_later$')
[[ $structs -gt 15 && $structs -eq $fields && $enums -gt 8 && $enums -eq $members ]] || {
	echo "of $structs structures $fields have one more field, of $enums enumerations $members one more member"
	exit 1
}
# The program uses each structure, and of each enumeration a member at least.
program=$UFFDWP_SOURCE/tests/abi/old_program.c
unused=$(awk -v program="$program" '
	FILENAME == program { text = text $0 "\n"; next }
	/^struct uffdwp[a-z_]* \{/ { names[++count] = "(struct " $2 "|ANSWER\\(" $2 "|ARRAY\\(" $2 ")[^a-z_]"; says[count] = "struct " $2 }
	/^enum uffdwp[a-z_]* \{/ { says[++count] = "enum " $2; names[count] = "none"; inside = 1 }
	inside { for (rest = $0; match(rest, /UFFDWP_[A-Z_]+ =/); rest = substr(rest, RSTART + RLENGTH))
		names[count] = names[count] "|" substr(rest, RSTART, RLENGTH - 2) "[^A-Z_]" }
	/\};/ { inside = 0 }
	END { for (i = 1; i <= count; i++) if (text !~ names[i]) print "  " says[i] }
' "$program" "$UFFDWP_SOURCE"/include/uffdwp/*.h)
[[ -z $unused ]] || {
	printf 'old_program.c uses none of:\n%s\n' "$unused"
	exit 1
}
for library in "$UFFDWP_BUILD/lib" "$UFFDWP_BUILD/tests/abi"; do
	echo "with $library:"
	LD_LIBRARY_PATH=$library ldd "$UFFDWP_BUILD/tests/old_program" | grep -F "$library/libuffdwp.so" >/dev/null
	LD_LIBRARY_PATH=$library "$UFFDWP_BUILD/tests/old_program" "$scratch/one.img" "$scratch/merged.img"
	rm -f "$scratch"/*.img
done
echo "$structs structures with one more field, $enums enumerations with one more member"
