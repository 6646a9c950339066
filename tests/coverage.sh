#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# How much of lib/ the tests reach: built with --coverage and without asserted invariants, unit, abi, kernel and inject tests
# run, then lines and branches for each module, and the files of which least was reached. What a process did that was killed, or
# ended by _exit(2), is not counted, so figures are too low, never too high.
# usage: tests/coverage.sh [--no-install] [--html FOLDER] [-- CTEST-ARGUMENT...]
#
#   --no-install     take the packages that are there
#   --html FOLDER    write pages there that show each line
#
# The build folder is build-coverage; counts of former runs are forgotten. Exit code: 0, also where tests failed, which is said;
# 2: a wrong argument.
set -euo pipefail
cd "$(dirname "$0")/.."

install=1
html=
ctest_arguments=(-L '^(unit|abi|kernel|inject)$')
while [[ $# -gt 0 ]]; do
	case $1 in
	--no-install) install=0 ;;
	--html) html=${2:?} && shift ;;
	--)
		shift
		ctest_arguments=("$@")
		break
		;;
	*)
		sed -n '3,/^set /{/^set /!s/^# \{0,1\}//p}' "$0" >&2
		exit 2
		;;
	esac
	shift
done
folder=build-coverage
[[ $install -eq 0 ]] || ./tools/install-deps.sh build test coverage

# Handlers, writers and sweeps count at the same time: atomically.
cmake -S . -B "$folder" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS="--coverage -O1 -fprofile-update=atomic" \
	-DUFFDWP_INVARIANTS=OFF -DUFFDWP_WERROR=OFF -DUFFDWP_BENCH=OFF -DUFFDWP_TEST_GROUPS="unit;abi;kernel;inject" >/dev/null
cmake --build "$folder" -j "$(nproc)" >"$folder/build.log" || {
	tail -n 40 "$folder/build.log"
	exit 1
}
find "$folder" -name '*.gcda' -delete
ctest --test-dir "$folder" -j "$(nproc)" "${ctest_arguments[@]}" >"$folder/tests.log" 2>&1 </dev/null || true
grep -E '\*\*\*(Failed|Timeout|Exception)' "$folder/tests.log" || true
grep -E '^[0-9]+% tests passed' "$folder/tests.log" || echo "the tests did not come to their end"

options=(--root . --filter 'lib/.*' --exclude-unreachable-branches --exclude-throw-branches "$folder/lib")
gcovr "${options[@]}" --csv "$folder/coverage.csv"
if [[ -n $html ]]; then
	mkdir -p "$html"
	gcovr "${options[@]}" --html-details "$html/index.html"
fi

# filename,line_total,line_covered,line_percent,branch_total,branch_covered,...
awk -F, '
	function row(name, lines, lines_hit, branches, branches_hit) {
		printf "| %s | %d | %.1f | %d | %.1f |\n", name, lines, lines ? 100 * lines_hit / lines : 100, branches,
			branches ? 100 * branches_hit / branches : 100
	}
	NR > 1 && $2 > 0 {
		count = split($1, part, "/")
		module = count > 2 ? part[2] "/" : "api"
		if (!(module in lines)) order[++modules] = module
		lines[module] += $2; lines_hit[module] += $3; branches[module] += $5; branches_hit[module] += $6
		all[1] += $2; all[2] += $3; all[3] += $5; all[4] += $6
	}
	END {
		print "| module | lines | reached, % | branches | reached, % |"
		print "| --- | --- | --- | --- | --- |"
		for (i = 1; i <= modules; i++) {
			name = order[i]
			row("`" name "`", lines[name], lines_hit[name], branches[name], branches_hit[name])
		}
		row("all", all[1], all[2], all[3], all[4])
	}' "$folder/coverage.csv"
echo
echo "least reached:"
awk -F, 'NR > 1 && $2 >= 20 { printf "  %5.1f %%  %s\n", 100 * $3 / $2, $1 }' "$folder/coverage.csv" | sort -n | head -n 8
