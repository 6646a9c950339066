#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Named invariants: each INV-NAME that a source or a test cites is defined in exactly one file of lib/ or tools/, by a
# line of a header comment that says "INV-NAME:", is cited by at least one test, and is asserted in lib/ by INVARIANT(NAME,
# condition) (base/invariant.h). Of BUILD-FOLDER, if it is built: the library that tests are linked with asserts them, and no
# code of that is left in the library that is installed, nor in the tools and benchmarks. usage: tests/check-invariants.sh [BUILD-FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build}

pattern='INV-[A-Z]+(-[A-Z]+)*'
failed=0
complain() {
	echo "check-invariants: $*"
	failed=1
}

names=$(grep -rohE --include='*.[ch]' "$pattern" include lib tests tools bench | sort -u)
for name in $names; do
	definitions=$(grep -rlE --include='*.[ch]' "(^|[^A-Z-])$name:" include lib tools || true)
	count=$(grep -c . <<<"$definitions" || true)
	[[ $count -eq 1 ]] || complain "$name is defined in $count files, not in one: ${definitions//$'\n'/ }"
	grep -rqE --include='*.[ch]' "(^|[^A-Z-])$name([^A-Z-]|\$)" tests || complain "$name is cited by no test"
	[[ $definitions != lib/* ]] || grep -rqE --include='*.[ch]' "INVARIANT\(${name#INV-}," lib || complain "$name is asserted nowhere in lib/"
done
listed=$(grep -oE 'each\([A-Z]+\)' lib/base/invariant.h | sed -E 's/each\((.*)\)/INV-\1/' | sort -u)
inner=$(grep -rohE --include='*.[ch]' "(^|[^A-Z-])$pattern:" lib | grep -oE "$pattern" | sort -u)
[[ $listed == "$inner" ]] || complain "lib/base/invariant.h does not list the names that lib/ defines: $(
	diff <(echo "$listed") <(echo "$inner") | grep '^[<>]' | paste -sd ' '
)"
assertions() {
	nm -A "$@" | grep -E ' invariant_' || true
}
if [[ -d $folder/lib/CMakeFiles ]]; then
	mapfile -t built < <(find "$folder/lib/CMakeFiles/uffdwp_objects.dir" "$folder/lib" "$folder/bin" -maxdepth 3 -type f \
		\( -name '*.o' -o -name '*.a' -o -name '*.so*' -o -path "$folder/bin/*" \) ! -path '*/uffdwp_checked.dir/*' | sort)
	left=$(assertions "${built[@]}")
	[[ -z $left ]] || complain "what is installed or measured checks invariants: ${left%%$'\n'*}"
	[[ -n $(assertions "$folder"/lib/CMakeFiles/uffdwp_checked.dir/*/*.o) ]] || complain "the tests' library checks no invariant"
	[[ -n $left ]] || echo "invariants: none is checked in ${#built[@]} objects, libraries and programs that are installed or measured"
fi
[[ $failed -eq 0 ]] && echo "invariants: $(wc -w <<<"$names") names, each defined once, asserted and tested"
exit "$failed"
