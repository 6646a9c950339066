#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Named invariants: each INV-NAME that a source or a test cites is defined in exactly one file of lib/ or tools/, by a
# line of a header comment that says "INV-NAME:", and is cited by at least one test.
set -euo pipefail
cd "$(dirname "$0")/.."

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
done
[[ $failed -eq 0 ]] && echo "invariants: $(wc -w <<<"$names") names, each defined once and tested"
exit "$failed"
