#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What .ci/run and .ci/long share: the steps that both have, and the running of steps. Sourced by them, never run: they
# set `self` (their own path) and `steps` (the names of all steps, in order), and are in the project's folder.
# Each step is a function that runs in a shell of its own; all run even if one failed, and the end says which did.
# shellcheck disable=SC2154 # self and steps
set -euo pipefail
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
jobs=$(nproc)

c_files() {
	find bench examples include lib tests tools -name '*.[ch]' | sort
}

# Files that are part of the clang build, which clang-tidy needs to know how they are compiled.
compiled_files() {
	sed -nE 's/^ *"file": "(.*\.c)",?$/\1/p' build-clang/compile_commands.json | sort -u
}

step_install() {
	./tools/install-deps.sh build test check reach
}

step_format() {
	c_files | xargs clang-format --dry-run -Werror
	echo "format: $(c_files | wc -l) files as .clang-format has them"
}

step_cppcheck_all() {
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr -j "$jobs" \
		--suppressions-list=.ci/cppcheck.txt --error-exitcode=1 -D_GNU_SOURCE -D__x86_64__ \
		-I include -I lib -I tests/support bench examples lib tools tests
	echo "cppcheck: clean"
}

step_shell() {
	local scripts
	mapfile -t scripts < <(grep -rlE '^#!.*\b(ba)?sh|^# shellcheck shell=' --include='*' .ci tools tests bench debian | sort)
	shellcheck "${scripts[@]}"
	echo "shellcheck: ${#scripts[@]} scripts clean"
}

# Each public header alone, by the oldest languages that it promises, twice in one file.
step_headers() {
	local compiler header
	for compiler in "gcc -x c -std=c99" "clang -x c -std=c99" "g++ -x c++ -std=c++11" "clang++ -x c++ -std=c++11"; do
		read -ra command <<<"$compiler"
		for header in include/uffdwp.h include/uffdwp/*.h; do
			printf '#include <%s>\n#include <%s>\n' "${header#include/}" "${header#include/}" |
				"${command[@]}" -pedantic-errors -Wall -Wextra -Wundef -Werror -Iinclude -fsyntax-only -
		done
		echo "headers: $compiler"
	done
}

# What the library exports, what the map names and what the header declares are the same.
step_symbols() {
	local exported mapped declared
	exported=$(nm -D --defined-only --format=posix build/lib/libuffdwp.so | awk '$2 != "A" { sub(/@.*/, "", $1); print $1 }' | sort)
	mapped=$(sed -nE 's/^[[:space:]]*(uffdwp_[a-z_]+);/\1/p' lib/libuffdwp.map | sort)
	declared=$(gcc -E -P -Iinclude include/uffdwp.h | tr '\n' ' ' | sed 's/;/;\n/g' | grep visibility |
		grep -oE '\buffdwp_[a-z_]+\(' | tr -d '(' | sort)
	[[ $(readelf -n build/lib/libuffdwp.so | sed -nE 's/^ *Name: //p' | sort -u | paste -sd ' ') == "commit cut fault release round save" ]] || {
		echo "the probe points of lib/base/probe_points.h are not all there: readelf -n build/lib/libuffdwp.so"
		return 1
	}
	diff <(echo "$mapped") <(echo "$exported")
	diff <(echo "$mapped") <(echo "$declared")
	diff <(echo "$mapped") <(sed -nE 's/^ (uffdwp_[a-z_]+)@.*/\1/p' debian/libuffdwp0.symbols | sort)
	echo "symbols: $(wc -l <<<"$exported") exported, as in the map, the header and debian/libuffdwp0.symbols"
}

step_layers() {
	./tests/check-layers.sh
	./tests/check-circles.sh build
}

step_invariants() {
	./tests/check-invariants.sh
}

step_names() {
	./tests/check-names.sh
}

step_words() {
	./tests/check-words.sh
}

step_fault_path() {
	./tests/check-fault-path.sh build
}

# Functions are measured by clang-tidy (readability-function-size).
step_sizes() {
	local long
	long=$({ c_files && find bench tests tools -name '*.cpp'; } | xargs wc -l | awk '$2 != "total" && $1 > 800')
	[[ -z $long ]] || {
		printf 'files over 800 lines:\n%s\n' "$long"
		return 1
	}
	echo "sizes: no file over 800 lines"
}

# clang-tidy over the files whose paths match, with further options of its own: it needs to know how they are compiled.
tidy() {
	local files
	[[ -f build-clang/compile_commands.json ]] || ./tests/run.sh --cc=clang --build-only --no-install
	mapfile -t files < <(compiled_files | grep -E "$1")
	printf '%s\n' "${files[@]}" | xargs -P "$jobs" -n 4 clang-tidy -p build-clang --quiet --warnings-as-errors='*' "${@:2}"
	echo "clang-tidy: ${#files[@]} files clean"
}

# The fuzzers, so many seconds each.
fuzz() {
	./tests/fuzz/run.sh "--seconds=$1"
}

# Boots that failed are made once more, since an emulated machine hangs now and then; what failed first stays in the
# output. Takes options of tests/vm/run.sh.
vm() {
	local log boot again=()
	log=$(mktemp)
	./tests/vm/run.sh "$@" | tee "$log" && return
	while read -r boot; do
		again+=(--only "$boot")
	done < <(sed -nE '/^== Failed/,/^$/s/^  ([^: ]+): .*/\1/p' "$log" | sort -u)
	rm -f "$log"
	[[ ${#again[@]} -gt 0 ]] || return 1
	echo "vm: FAILED at first, once more: ${again[*]}"
	./tests/vm/run.sh "$@" "${again[@]}"
}

print_table() {
	local step
	printf '\n%-20s %8s  %s\n' step seconds result
	for step in "$@"; do
		printf '%-20s %8d  %s\n' "$step" "${took[$step]}" "${result[$step]}"
	done
}

# The last lines of each test that failed, from the log of a test run.
print_failed_tests() {
	awk -v most=25 '
		function end_test(i) {
			for (i = count > most ? count - most : 0; i < count; i++)
				print "  " lines[i]
			failed = count = 0
		}
		/^ *[0-9]+\/[0-9]+ Test +#|^ *Start +[0-9]+:/ {
			if (failed)
				end_test()
			failed = /\*\*\*(Failed|Timeout|Exception|Not Run)/
			if (failed)
				print
			next
		}
		/^[0-9]+% tests passed/ { exit }
		failed { lines[count++] = $0 }
		END { if (failed) end_test() }' "$1"
}

# The closing lines of the test runs, once more where they are seen.
print_closing_lines() {
	local log
	for log in build*/Testing/run.log; do
		[[ -f $log && $log -nt $began ]] || continue
		printf '\n%s:\n' "${log%/Testing/run.log}"
		sed -n '/tests passed/,$p' "$log"
		print_failed_tests "$log"
	done
}

# The last lines of each step that failed, once more at the end: the rest may be cut off where this is read.
print_failed_steps() {
	local step
	for step in "$@"; do
		printf '\n==== %s failed; its last lines:\n' "${step//_/ }"
		tail -n 80 "$outputs/$step"
	done
}

declare -A took=() result=()
run_all() {
	local failed=() step started began outputs out
	began=$(mktemp)
	outputs=$(mktemp -d)
	for step in "$@"; do
		printf '\n==== %s\n' "${step//_/ }"
		started=$SECONDS
		result[$step]=passed
		exec {out}> >(tee "$outputs/$step")
		bash "$self" --step "$step" </dev/null >&"$out" 2>&1 || {
			result[$step]=FAILED
			failed+=("$step")
		}
		exec {out}>&-
		# No longer than this: a process that a step did not end may hold the pipe open.
		timeout 2 tail --pid=$! -s 0.05 -f /dev/null || true
		took[$step]=$((SECONDS - started))
		printf -- '---- %s: %s, %d s\n' "${step//_/ }" "${result[$step]}" "${took[$step]}"
	done
	print_closing_lines
	print_failed_steps "${failed[@]}"
	rm -rf "$began" "$outputs"
	print_table "$@"
	if [[ ${#failed[@]} -gt 0 ]]; then
		printf '\nci: FAILED: %s\n' "${failed[*]}"
		return 1
	fi
	printf '\nci: all %d steps passed in %d s\n' "$#" "$SECONDS"
}

# Runs the steps that are named, or all.
run_steps() {
	local step
	if [[ ${1:-} == --step ]]; then
		"step_$2"
		return
	fi
	for step in "$@"; do
		[[ " ${steps[*]} " == *" $step "* ]] || {
			echo "unknown step '$step'; steps: ${steps[*]}" >&2
			return 2
		}
	done
	[[ $# -gt 0 ]] || set -- "${steps[@]}"
	run_all "$@"
}
