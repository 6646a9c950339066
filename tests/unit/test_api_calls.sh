#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# No exported function is a cancellation point: each begins with API_CALL() or has it before its first wait; those that are
# named here call nothing that waits.
set -euo pipefail
cd "$UFFDWP_SOURCE"

exempt=(uffdwp_version uffdwp_built uffdwp_region_base uffdwp_view_base uffdwp_error_text uffdwp_region_locate)

# The exported functions of the files, each with 1 or 0: it has an API_CALL().
list() {
	awk '
		/^UFFDWP_EXPORT / { name = $0; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name); has = 0 }
		/API_CALL\(\);/ { has = 1 }
		/^}/ && name != "" { print name, has; name = "" }
	' "$@"
}

missing=$(list lib/api*.c | awk '$2 == 0 { print $1 }' | grep -vxF "$(printf '%s\n' "${exempt[@]}")" || true)
if [[ -n $missing ]]; then
	echo "without API_CALL(): $missing"
	exit 1
fi
count=$(list lib/api*.c | wc -l)
exported=$(grep -hcE '^UFFDWP_EXPORT ' lib/api*.c | awk '{ sum += $1 } END { print sum }')
if [[ $count != "$exported" || $count -lt 50 ]]; then
	echo "$count of $exported exported functions were found"
	exit 1
fi
