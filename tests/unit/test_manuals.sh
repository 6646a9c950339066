#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The manuals of the library: each exported function has a page, and no page is of something else; each page has what a
# page of its kind must have, its references lead to pages, and the program in uffdwp(7) compiles. All pages that were
# built, those of the programs too, go through the formatters without a warning, and whatis(1) understands their NAME.
set -euo pipefail

: "${UFFDWP_SOURCE:?run by ctest}" "${UFFDWP_BUILD:?}" "${CC:?}"
folder=$UFFDWP_BUILD/man
if [[ ! -d $folder/man3 ]]; then
	echo "skipped: the manuals were not built (UFFDWP_INSTALL?)"
	exit 77
fi
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-manuals.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export LC_ALL=C.UTF-8

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# Those that are another one by a second name (.so) are not looked at twice.
mapfile -t pages < <(find "$folder" -type f -exec grep -L '^\.so ' {} + | sort)
mapfile -t functions < <(find "$folder/man3" -type f | sort)

# Names of pages against names of the map.
compare_names() {
	diff <(sed -nE 's/^\t(uffdwp_[a-z_]+);/\1.3/p' "$UFFDWP_SOURCE/lib/libuffdwp.map" | sort) \
		<(printf '%s\n' "${functions[@]##*/}" | sort) >&2 || fail "the map and the pages of section 3 differ"
	[[ ${#functions[@]} -ge 70 ]] || fail "only ${#functions[@]} pages of functions"
}

# What a page of section 3 is made of. A line of NAME that is long is a text that begins badly.
look_at_functions() {
	local page section name line
	for page in "${functions[@]}"; do
		name=$(basename "$page" .3)
		for section in NAME LIBRARY SYNOPSIS DESCRIPTION "RETURN VALUE" NOTES HISTORY "SEE ALSO"; do
			grep -qx "\.SH $section" "$page" || fail "$name has no section $section"
		done
		line=$(sed -n '/^\.SH NAME/{n;p;}' "$page")
		[[ ${#line} -le 120 && $line == "$name \\- "?????* ]] || fail "$name: the line of NAME: $line"
		grep -qE "^\.BI? \"[a-z].*[ *]$name\(" "$page" || fail "$name: the prototype"
		! grep -E '^\.BR UFFDWP_[A-Z_]+ ' "$page" | grep -vE ' " \([0-9]+\)"$' >&2 || fail "$name: an enumeration"
	done
}

# Each error that a function's text names is an item of the page, but those that the text says of other calls.
count_errors() {
	local items
	items=$(cat "${functions[@]}" | grep -cE '^\.B \\-E[A-Z0-9]+$')
	[[ $items -ge 200 ]] || fail "only $items errors in all pages of functions"
}

# References to pages of ours lead somewhere.
follow_references() {
	local wanted
	local section
	while read -r wanted; do
		section=${wanted: -2:1}
		[[ -f $folder/man$section/${wanted%(*}.$section || ($section == 1 && ! -x ${UFFDWP_CTL:-}) ]] ||
			fail "there is no $wanted, which is referred to"
	done < <(sed 's/\\-/-/g; s/\\f[BRI]//g; s/ (\([137])\)/(\1/g' "${pages[@]}" |
		grep -oE 'uffdwp[a-z_-]*\([137]\)' | sort -u)
}

# The points of the header's top and of the manual have the same numbers.
compare_caveats() {
	diff <(grep -oE '^ \*  [0-9]+\. ' "$UFFDWP_SOURCE/include/uffdwp.h" | tr -cd '0-9\n') \
		<(sed -nE 's/^\.IP ([0-9]+)\. 4$/\1/p' "$folder/man7/uffdwp-caveats.7") >&2 || fail "caveats"
}

compile_program() {
	sed -n '/^\.EX/,/^\.EE/p' "$folder/man7/uffdwp.7" | sed '/^\.E[XE]/d; s/\\(aq/'\''/g; s/\\-/-/g; s/\\e/\\/g' >"$scratch/program.c"
	grep -q uffdwp_snapshot_begin "$scratch/program.c" || fail "no program in uffdwp(7)"
	"$CC" -std=c99 -pedantic-errors -Wall -Wextra -Werror -I "$UFFDWP_SOURCE/include" -c -o "$scratch/program.o" "$scratch/program.c" ||
		fail "the program in uffdwp(7) does not compile"
}

# Every awk makes the same pages.
compare_awks() {
	local awk
	for awk in mawk gawk original-awk "busybox awk"; do
		command -v "${awk%% *}" >/dev/null || continue
		mkdir "$scratch/man3"
		(cd "$UFFDWP_SOURCE/include/man" && $awk -f header.awk -f page.awk -v "folder=$scratch/man3" \
			-v "date=$(awk '$1 == ".TH" { print $4 }' "${functions[0]}")" ../uffdwp/*.h) || fail "$awk"
		diff -r "$folder/man3" "$scratch/man3" >&2 || fail "$awk makes other pages"
		rm -r "$scratch/man3"
	done
}

# What is installed of these looks at all pages.
format_pages() {
	local said
	if command -v groff >/dev/null; then
		said=$(groff -man -ww -z -Tutf8 "${pages[@]}" 2>&1)
		[[ -z $said ]] || fail "groff: $said"
	else
		echo "not tested here: groff is not installed"
	fi
	if command -v mandoc >/dev/null; then
		mandoc -T lint -W warning "${pages[@]}" >&2 || fail "mandoc"
	else
		echo "not tested here: mandoc is not installed"
	fi
	if command -v lexgrog >/dev/null; then
		lexgrog "${pages[@]}" >"$scratch/names" || fail "lexgrog: $(grep -v '"' "$scratch/names")"
		[[ $(wc -l <"$scratch/names") -eq ${#pages[@]} ]] || fail "lexgrog: a page with several names"
	else
		echo "not tested here: lexgrog (man-db) is not installed"
	fi
}

compare_names
look_at_functions
count_errors
follow_references
compare_caveats
compile_program
compare_awks
format_pages
echo "manuals: ${#pages[@]} pages, ${#functions[@]} of functions"
