#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds the fuzzers and lets each of them run for a while, from the seeds in the tree and what former runs kept.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
	cat <<'END'
usage: tests/fuzz/run.sh [--seconds=N] [--jobs=N] [--list] [TARGET]...

Builds tests/fuzz/fuzz_*.c with clang's libFuzzer, the address and the undefined behaviour sanitizer in build-fuzz/, and
runs each TARGET (by default all) for N seconds (by default 60), as many at a time as there are CPUs. Inputs that reach new code are kept in
build-fuzz/corpus/TARGET, an input that fails in build-fuzz/artifacts/.

  --list   print the targets and end
  UFFDWP_SEED=N in the environment repeats the random choices of a run, which prints N.

Exit code: 0 when nothing failed, 1 for a crash, a leak, an input that takes longer than 60 s or more than 2 GiB, 2 for a
wrong argument.
END
}

seconds=60
jobs=$(nproc)
targets=()
folder=build-fuzz

all_targets() {
	local source
	for source in tests/fuzz/fuzz_*.c; do
		basename "$source" .c
	done
}

parse() {
	while [[ $# -gt 0 ]]; do
		case $1 in
		--help | -h)
			usage
			exit 0
			;;
		--list)
			all_targets
			exit 0
			;;
		--seconds=*) seconds=${1#*=} ;;
		--jobs=*) jobs=${1#*=} ;;
		fuzz_*)
			[[ -f tests/fuzz/$1.c ]] || {
				echo "fuzz/run.sh: there is no target '$1', see --list" >&2
				exit 2
			}
			targets+=("$1")
			;;
		*)
			echo "fuzz/run.sh: unknown argument '$1', see --help" >&2
			exit 2
			;;
		esac
		shift
	done
	[[ $seconds =~ ^[1-9][0-9]*$ ]] || {
		echo "fuzz/run.sh: --seconds needs a number above 0, not '$seconds'" >&2
		exit 2
	}
	[[ $jobs =~ ^[1-9][0-9]*$ ]] || {
		echo "fuzz/run.sh: --jobs needs a number above 0, not '$jobs'" >&2
		exit 2
	}
	[[ ${#targets[@]} -gt 0 ]] || mapfile -t targets < <(all_targets)
}

build() {
	cmake -S . -B "$folder" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ \
		-DUFFDWP_FUZZ=ON -DUFFDWP_TESTS=OFF -DUFFDWP_TOOLS=OFF -DUFFDWP_BENCH=OFF \
		-DUFFDWP_EXAMPLES=OFF >/dev/null
	cmake --build "$folder" -j "$(nproc)" --target "${targets[@]}" >"$folder/build.log" || {
		cat "$folder/build.log" >&2
		exit 1
	}
}

# What libFuzzer says of itself: the last of a kind.
number_of() {
	sed -nE "s/.*$1 *([0-9]+).*/\1/p" "$2" | tail -n 1
}

run_target() {
	local target=$1 log=$folder/$1.log corpus=$folder/corpus/$1 seeds=tests/fuzz/seeds/$1 status=0
	local options folders=("$corpus")
	mkdir -p "$corpus" "$folder/artifacts"
	[[ ! -d $seeds ]] || folders+=("$seeds")
	read -ra options < <(sed -nE 's/.*fuzz-options: *(.*)/\1/p' "tests/fuzz/$target.c" | head -n 1) || true
	"$folder/fuzz/$target" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 \
		-seed="${UFFDWP_SEED:-$RANDOM}" -artifact_prefix="$folder/artifacts/$target-" "${options[@]}" \
		"${folders[@]}" >"$log" 2>&1 || status=$?
	local runs edges features
	runs=$(number_of 'stat::number_of_executed_units:' "$log")
	edges=$(number_of 'cov:' "$log")
	features=$(number_of 'ft:' "$log")
	local summary="${runs:-0} runs, coverage ${edges:-0} edges, ${features:-0} features"
	summary+=", $(find "$corpus" -type f | wc -l) inputs kept, seed $(number_of 'INFO: Seed:' "$log")"
	if [[ $status -eq 0 ]]; then
		echo "$target: no fault: $summary"
		return 0
	fi
	tail -n 60 "$log" >&2
	echo "$target: FAILED: $summary; the input: $(sed -nE 's/.*Test unit written to (.*)/\1/p' "$log" | tail -n 1)"
	return 1
}

parse "$@"
# Files of the fuzzers, in memory where there is such a folder: a fuzzer that is stopped, or fails, cannot remove its own.
scratch=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo /tmp)" uffdwp-fuzz-XXXXXX)
trap 'rm -rf "$scratch"' EXIT
export UFFDWP_FUZZ_SCRATCH=$scratch
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=0:allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
build
failed=0
running=0
for target in "${targets[@]}"; do
	if [[ $running -ge $jobs ]]; then
		wait -n || failed=1
		running=$((running - 1))
	fi
	run_target "$target" &
	running=$((running + 1))
done
while [[ $running -gt 0 ]]; do
	wait -n || failed=1
	running=$((running - 1))
done
exit "$failed"
