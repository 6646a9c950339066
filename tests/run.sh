#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs what is missing, configures, builds, and runs the tests. What each group is: tests/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
	cat <<'END'
usage: tests/run.sh [OPTION]... [-- CTEST-ARGUMENT...]

  -R REGEX          only tests whose name matches; only these are built, unless one of them is a script
  -L REGEX          only groups that match: unit, abi, kernel, inject, habits, stress, tools, consumer, examples
  --sanitize=LIST   build with -fsanitize=LIST: "address,undefined" or "thread"
  --cc=clang        build with clang instead of the system's compiler
  --no-invariants   link the tests with the library as it is installed, which asserts none of the named invariants
  --build-only      do not run
  --no-install      take the packages that are there
  --help

Each combination of compiler and sanitizer has a build folder of its own: build, build-asan, build-tsan, build-clang,
build-clang-asan, build-clang-tsan; with --no-invariants "-unasserted" is added. UFFDWP_SEED=N repeats the random tests of a
former run, which printed N.
UFFDWP_STRESS_SECONDS=N makes the stress test as long as that.

Run it as root to test everything: swap, huge pages and sysctls are switched by the tests that need them, and put back.
Exit code: 0 when no test failed (those that were skipped say why), else 1; 2 for a wrong argument.
END
}

sanitize=
cc=
build_only=0
invariants=ON
install=1
selected=0
ctest_arguments=()

parse() {
	while [[ $# -gt 0 ]]; do
		case $1 in
		--help | -h)
			usage
			exit 0
			;;
		-R | -L)
			[[ $# -ge 2 ]] || {
				echo "run.sh: $1 needs a value" >&2
				exit 2
			}
			ctest_arguments+=("$1" "$2")
			selected=1
			shift
			;;
		--sanitize=*) sanitize=${1#*=} ;;
		--cc=*) cc=${1#*=} ;;
		--no-invariants) invariants=OFF ;;
		--build-only) build_only=1 ;;
		--no-install) install=0 ;;
		--)
			shift
			ctest_arguments+=("$@")
			return
			;;
		*)
			echo "run.sh: unknown argument '$1', see --help" >&2
			exit 2
			;;
		esac
		shift
	done
}

build_folder() {
	local folder=build
	[[ $cc == *clang* ]] && folder+=-clang
	case $sanitize in
	"") ;;
	*thread*) folder+=-tsan ;;
	*) folder+=-asan ;;
	esac
	[[ $invariants == OFF ]] && folder+=-unasserted
	echo "$folder"
}

compiler_pair() {
	case $cc in
	"") ;; # what CMake finds: the folder may be there already, made by another script
	*clang*) echo "-DCMAKE_C_COMPILER=$cc -DCMAKE_CXX_COMPILER=${cc/clang/clang++}" ;;
	*) echo "-DCMAKE_C_COMPILER=$cc -DCMAKE_CXX_COMPILER=${cc/gcc/g++}" ;;
	esac
}

build() {
	local compilers
	read -ra compilers <<<"$(compiler_pair)"
	cmake -S . -B "$folder" -DCMAKE_BUILD_TYPE=RelWithDebInfo "-DUFFDWP_SANITIZE=$sanitize" \
		"-DUFFDWP_INVARIANTS=$invariants" "${compilers[@]}"
	local targets=()
	mapfile -t targets < <(wanted_targets)
	cmake --build "$folder" -j "$(nproc)" ${targets[@]+--target "${targets[@]}"}
}

# The programs that the tests named by -R are, where all of them are programs; a script may want anything that is built.
wanted_targets() {
	local tests
	[[ $selected -eq 1 && $build_only -eq 0 ]] || return 0
	tests=$(ctest --test-dir "$folder" -N "${ctest_arguments[@]}" | sed -nE 's/^ *Test +#[0-9]+: ([^ ]+).*/\1/p' | sort)
	[[ -n $(comm -23 <(echo "$tests") \
		<(cmake --build "$folder" --target help | sed -nE 's/^(\.\.\. )?([a-z0-9_]+)(: .*)?$/\2/p' | sort)) ]] || echo "$tests"
}

# The thread sanitizer of these compilers cannot place its shadow beside addresses that are randomized with many bits.
fixed_addresses() {
	if [[ $sanitize == *thread* ]] && setarch -R true 2>/dev/null; then
		setarch -R "$@"
	else
		"$@"
	fi
}

run() {
	local log=$folder/Testing/run.log status=0
	mkdir -p "$folder/Testing"
	# use_sigaltstack=0: at the end of a thread its own bookkeeping trips over itself (gcc 12).
	export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=0:detect_stack_use_after_return=0:use_sigaltstack=0}
	export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
	export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1:die_after_fork=0:suppressions=$PWD/tests/tsan.supp}
	# One more than there are CPUs: many tests sleep most of their time.
	fixed_addresses ctest --test-dir "$folder" --output-on-failure --no-tests=error -j "$(($(nproc) + 1))" \
		"${ctest_arguments[@]}" </dev/null 2>&1 | tee "$log" || status=1
	summary "$log"
	invariants | tee -a "$log"
	return "$status"
}

# How often the programs of this run checked each named invariant.
invariants() {
	[[ -f $folder/Testing/Temporary/LastTest.log ]] || return 0
	awk '/^invariants checked:/ { for (i = 3; i < NF; i += 2) sum[$i] += $(i + 1) }
		END { for (name in sum) printf "  %-15s checked %12d times\n", name, sum[name] }' \
		"$folder/Testing/Temporary/LastTest.log" | sort
}

summary() {
	echo
	echo "build: ${cc:-cc}${sanitize:+, -fsanitize=$sanitize}, in $folder/, on $(uname -sr)"
	grep -E '\*\*\*(Failed|Timeout|Exception|Not Run|Skipped)' "$1" | sed 's/^/  /' || true
	grep -hE '^[0-9: ]*(skipped|not tested here): ' "$folder/Testing/Temporary/LastTest.log" | sort -u | sed 's/^/  /' || true
	grep -E '^[0-9]+% tests passed' "$1" || true
}

parse "$@"
folder=$(build_folder)
export LC_ALL=C.UTF-8
if [[ $install -eq 1 ]]; then
	groups=(build test)
	[[ $cc == *clang* ]] && groups+=(check)
	./tools/install-deps.sh "${groups[@]}"
fi
build
if [[ $build_only -eq 0 ]]; then
	run
fi
