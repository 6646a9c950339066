#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The doctor says, as text and as JSON, what the library was built with. The second witness is what CMake was asked for.
set -euo pipefail

: "${UFFDWP_CTL:?run by ctest}" "${UFFDWP_BUILD:?}"
[[ -x $UFFDWP_CTL ]] || {
	echo "skipped: uffdwp-ctl is not built"
	exit 77
}

option() {
	grep -q "^UFFDWP_$1:BOOL=ON$" "$UFFDWP_BUILD/CMakeCache.txt" && echo "$2" || echo "$3"
}

# Exit codes up to 3 are verdicts on the kernel.
ask() {
	local code=0
	"$UFFDWP_CTL" doctor "$@" || code=$?
	[[ $code -le 3 ]]
}

# Those that are ON, or OFF, with commas between.
parts() {
	local name listed=""
	[[ $1 == OFF ]] || listed=io_uring
	for name in zstd numa nbd control; do
		[[ $(option "${name^^}" ON OFF) != "$1" ]] || listed+="${listed:+, }$name"
	done
	echo "$listed"
}

said=$(ask)
with=$(parts ON)
without=$(parts OFF)
grep -qE "^ *library built with +$with$" <<<"$said" || {
	echo "the text does not say: $with"
	exit 1
}
[[ -z $without ]] || grep -qE "^ *library built without +$without$" <<<"$said" || {
	echo "the text does not say what is left out: $without"
	exit 1
}
json="{\"io_uring\":true,\"zstd\":$(option ZSTD true false),\"numa\":$(option NUMA true false),\"nbd\":$(option NBD true false),\"control\":$(option CONTROL true false)}"
said=$(ask --json | tr -d ' \t\n')
grep -qF "\"built\":$json" <<<"$said" || {
	echo "the JSON does not say: $json"
	exit 1
}
echo "with $with; without ${without:-nothing}"
