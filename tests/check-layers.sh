#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Arrows point down only: a module of lib/ includes headers of its own or of lower modules, never of its users. Files in
# lib/ itself (api.c) stand on top. Tools and benchmarks include the public header only, and kernel/abi.h, which holds
# numbers of the kernel and nothing of the library.
set -euo pipefail
cd "$(dirname "$0")/.."

rank() {
	case $1 in
	base) echo 0 ;;
	kernel) echo 1 ;;
	region) echo 2 ;;
	fault) echo 3 ;;
	image) echo 4 ;;
	restore | snapshot | track) echo 5 ;;
	api) echo 6 ;;
	*) echo unknown ;;
	esac
}

failed=0
complain() {
	echo "check-layers: $*"
	failed=1
}

check_file() {
	local file=$1 module=$2 target
	while read -r target; do
		if [[ $(rank "$target") == unknown ]]; then
			complain "$file includes from '$target', which is no module"
		elif [[ $target != "$module" && $(rank "$target") -ge $(rank "$module") ]]; then
			complain "$file ($module) includes from $target, which does not lie below it"
		fi
	done < <(sed -nE 's|^#[[:space:]]*include "([a-z_]+)/.*|\1|p' "$file")
}

count=0
while read -r file; do
	module=${file#lib/}
	[[ $module == */* ]] && module=${module%%/*} || module=api
	if [[ $(rank "$module") == unknown ]]; then
		complain "$file lies in '$module', which has no rank in this script"
	else
		check_file "$file" "$module"
	fi
	count=$((count + 1))
done < <(find lib -name '*.[ch]' | sort)

while read -r line; do
	complain "inside of the library included from outside: $line"
done < <(grep -rnE --include='*.[ch]' '^#[[:space:]]*include "(base|kernel|region|fault|image|restore|snapshot|track)/' tools bench |
	grep -v '"kernel/abi.h"' || true)

[[ $failed -eq 0 ]] && echo "layers: $count files, all includes point down"
exit "$failed"
