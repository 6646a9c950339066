#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The fault path runs in signal handlers, while other threads hold any lock: its objects may use nothing from outside but
# what tests/fault-path-symbols.txt allows. usage: tests/check-fault-path.sh [BUILD-FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."

objects=${1:-build}/lib/CMakeFiles/uffdwp_objects.dir
list=tests/fault-path-symbols.txt
sources=$(sed -nE 's/^file[[:space:]]+([^[:space:]]+).*/\1/p' "$list")
allowed=$(sed -nE 's/^symbol[[:space:]]+([^[:space:]]+).*/\1/p' "$list" | sort -u)

files=()
for source in $sources; do
	[[ -f lib/$source && -f $objects/$source.o ]] || {
		echo "check-fault-path: no $source, or it is not built: $objects/$source.o"
		exit 1
	}
	files+=("$objects/$source.o")
done

used=$(nm -u --format=posix "${files[@]}" | awk '$2 == "U" || $2 == "w" { print $1 }' | sort -u)
defined=$(nm --defined-only --extern-only --format=posix "${files[@]}" | awk 'NF >= 2 { print $1 }' | sort -u)
used=$(comm -23 <(echo "$used") <(echo "$defined"))
failed=0
while read -r symbol; do
	[[ -z $symbol ]] && continue
	echo "check-fault-path: used but not allowed: $symbol (in $(nm -A -u "${files[@]}" |
		awk -v s="$symbol" '$NF == s { sub(/:.*/, "", $1); print $1 }' | xargs -n 1 basename | sort -u | paste -sd ' '))"
	failed=1
done < <(comm -23 <(echo "$used") <(echo "$allowed"))
while read -r symbol; do
	[[ -z $symbol ]] && continue
	echo "check-fault-path: allowed but no longer used: $symbol"
	failed=1
done < <(comm -13 <(echo "$used") <(echo "$allowed") | grep -vxF -f <(sed -nE 's/^symbol[[:space:]]+([^[:space:]]+).*\(optional\).*/\1/p' "$list") || true)
[[ $failed -eq 0 ]] && echo "fault path: ${#files[@]} objects use $(wc -w <<<"$used") outside symbols, all of them allowed"
exit "$failed"
