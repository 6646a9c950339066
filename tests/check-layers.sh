#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Arrows point down only: a module of lib/ includes headers of its own or of lower modules, never of its users. Files in
# lib/ itself (api.c) stand on top. Tools and benchmarks include the public header only, and kernel/abi.h, which holds
# numbers of the kernel and nothing of the library, base/escape.h and base/errno_name.h, which depend on nothing, and
# kernel/holes.h, which takes the operations that it calls. The
# exporters (lib/api*.c) hold no logic: no loop but in functions that check or take arguments, no lock (the rule is in
# lib/api_private.h). What one file does for all (a phase is moved by fault/phase.c alone) is done nowhere else.
set -euo pipefail
cd "$(dirname "$0")/.."

rank() {
	case $1 in
	base) echo 0 ;;
	kernel) echo 1 ;;
	io) echo 2 ;;
	region | image) echo 3 ;;
	fault) echo 4 ;;
	cut) echo 5 ;;
	snapshot | view | child | track | restore) echo 6 ;;
	control) echo 7 ;;
	api) echo 8 ;;
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
done < <(grep -rnE --include='*.[ch]' '^#[[:space:]]*include "(base|kernel|io|region|fault|cut|image|snapshot|view|child|track|restore|control)/' tools bench |
	grep -v -e '"kernel/abi.h"' -e '"base/escape.h"' -e '"base/errno_name.h"' -e '"kernel/holes.h"' || true)

# The exporters check, call and answer; what else they did would be done twice, or be missed by callers from inside.
logic_in_api() {
	awk '
		/^[a-zA-Z].*\(/ && !/;[[:space:]]*$/ && !/^#/ {
			name = $0
			sub(/\(.*/, "", name)
			sub(/.*[ *]/, "", name)
			checks = name ~ /(^|_)(check|take)(_|$)/
		}
		{
			code = $0
			gsub(/"[^"]*"/, "", code)
			sub(/\/\*.*/, "", code)
		}
		/^[ \/]\*/ { next }
		!checks && code ~ /^\t+(for|while|do)([[:space:]]|$)/ {
			print FILENAME ":" FNR ": a loop in " name "(), which is no check"
		}
		code ~ /(^|[^a-z_])(lock_(take|give)|lock_shared_|pthread_mutex|epoch_(enter|leave)|fault_epoch_|signals_(block|restore)|phase_[a-z]+\(|ledger_(set|move|touch))/ {
			print FILENAME ":" FNR ": " name "() holds a lock, an epoch, signals or a phase"
		}' "$@"
}

while read -r line; do
	complain "logic in the interface: $line"
done < <(logic_in_api lib/api*.c)

# What one file does for the whole library is done nowhere else. Comments may name it.
only_in() {
	local owner=$1 what=$2 pattern=$3 line
	while read -r line; do
		complain "$what outside of lib/$owner: $line"
	done < <(grep -rnE --include='*.[ch]' "$pattern" lib | grep -vE "^lib/$owner:|^[^:]*:[0-9]+:[[:space:]]*(/?\*|//)" || true)
	grep -qE "$pattern" "lib/$owner" || complain "$owner does not contain what it is said to: $what"
}

only_in fault/phase.c "a phase is moved" \
	'atomic_(store|exchange|compare_exchange|fetch)[a-z_]*\((\([^)]*\))?&[a-z_.>-]*(->|\.)phase[,)]|(->|\.)phase *=[^=]'
only_in base/errno_name.c "an error is described by what may allocate memory" 'strerror\('
only_in base/thread.c "a thread is started" 'pthread_create'
only_in base/thread.h "a thread gets its name" 'pthread_setname_np'
only_in kernel/pagemap.c "the pagemap is opened" '"/proc/self/pagemap", O_'
only_in kernel/own.c "an eventfd is made" 'eventfd\(\)'
while read -r line; do
	complain "the cut knows what it is made for: $line"
done < <(grep -nEi 'snapshot|view|child' lib/cut/*.[ch] || true)

[[ $failed -eq 0 ]] && echo "layers: $count files, all includes point down, no logic in the interface"
exit "$failed"
