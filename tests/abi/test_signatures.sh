#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Each function of release 0.1 is declared as it was: signatures_0_1.txt has their results and parameters. A later release
# may add functions, in a file of its own. (layout_0_1.h freezes what their parameters point to.)
set -euo pipefail
export LC_ALL=C # the order of the file

: "${UFFDWP_SOURCE:?run by ctest}" "${CC:?}"

# The declarations of the headers, a line each, without attributes.
declared() {
	"$CC" -E -P -I"$UFFDWP_SOURCE/include" "$UFFDWP_SOURCE/include/uffdwp.h" | tr -s '\n\t ' ' ' | sed 's/;/;\n/g' |
		grep -F 'visibility("default")' |
		sed -E 's/__attribute__ *\(\([^()]*(\([^()]*\))?[^()]*\)\)//g; s/^ +//; s/ +/ /g; s/ ?\( ?/(/g; s/\* /*/g' | sort
}

frozen=$UFFDWP_SOURCE/tests/abi/signatures_0_1.txt
changed=$(comm -13 <(declared) "$frozen")
[[ -z $changed ]] || {
	printf 'declared otherwise now, or not at all:\n%s\n' "$changed"
	exit 1
}
echo "$(wc -l <"$frozen") functions are declared as in 0.1"
