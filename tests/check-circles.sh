#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# No circle of files in lib/: what a file calls or refers to lies below it, so that one reader's walk ends. Asked of the
# objects, which know which file uses whose symbols. usage: tests/check-circles.sh [BUILD-FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."

objects=${1:-build}/lib/CMakeFiles/uffdwp_objects.dir
mapfile -t files < <(cd "$objects" && find . -name '*.c.o' | sed 's|^\./||' | sort)
[[ ${#files[@]} -gt 0 ]] || {
	echo "check-circles: nothing is built in $objects"
	exit 1
}

# "file symbol" lines of what the objects define (D) and need (U); then "user owner" pairs.
pairs=$(cd "$objects" && nm -A --format=posix "${files[@]}" | awk '
	{ file = $1; sub(/\[.*/, "", file); sub(/\.o:?$/, "", file) }
	$3 == "U" || $3 == "w" { user[n++] = file " " $2; next }
	$3 ~ /^[A-Z]$/ { owner[$2] = file }
	END {
		for (i = 0; i < n; i++) {
			split(user[i], part, " ")
			if (part[2] in owner && owner[part[2]] != part[1])
				print part[1], owner[part[2]]
		}
	}' | sort -u)
[[ $(wc -l <<<"$pairs") -gt ${#files[@]} ]] || {
	echo "check-circles: the objects' symbols could not be read"
	exit 1
}

if ! loops=$(tsort <<<"$pairs" 2>&1 >/dev/null); then
	echo "check-circles: these files of lib/ call each other in a circle:"
	sed -nE 's/^tsort: ([^-].*)/  \1/p' <<<"$loops" | grep -v 'input contains' || echo "$loops"
	exit 1
fi
echo "circles: ${#files[@]} files, $(wc -l <<<"$pairs") arrows, none of them up"
