#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The project in another release of Debian, with its compiler, headers and libraries, warnings being errors; in a system of
# its own, which is kept. usage: tests/debian.sh [--no-install] SUITE [--quick]
#
#   trixie     Debian 13: all of the project, and all tests; --quick: the unit tests
#   bullseye   Debian 11, glibc 2.31: the library and its unit tests; without libnuma, which has no pkg-config file there, and
#              with this machine's liburing, built there from Debian's source: its own is too old
#
# Exit code: 0 when all tests passed, or the mirror does not have the suite, which is named; else 1; 2: a wrong argument.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/roots.sh
. tests/roots.sh

suite=
quick=0
install=1
for argument in "$@"; do
	case $argument in
	trixie | bullseye) suite=$argument ;;
	--quick) quick=1 ;;
	--no-install) install=0 ;;
	*) suite= && break ;;
	esac
done
[[ -n $suite ]] || {
	sed -n '3,/^set /{/^set /!s/^# \{0,1\}//p}' "$0" >&2
	exit 2
}
[[ $install -eq 0 ]] || ./tools/install-deps.sh reach
roots_hold "$suite"

# Packages by the names that tools/install-deps.sh has for Debian 12.
prepare_trixie() {
	local groups=(build)
	[[ $quick -eq 1 ]] || groups+=(test)
	roots_make "$suite" "$suite" "" ccache check
	roots_run /src/tools/install-deps.sh "${groups[@]}" >"$roots/$suite.log" 2>&1 ||
		roots_not_had "packages of $suite" "$roots/$suite.log"
	[[ $quick -eq 0 ]] || {
		tests=(-L '^unit$')
		options=(-DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O2) # no debugging information: a fifth of the time
	}
}

build_liburing() {
	roots_scratch "$root/build"
	roots_sources "$scratch" liburing
	local folder
	folder=$(echo "$scratch"/liburing-*/)
	# shellcheck disable=SC2016 # the inner shell replaces these
	roots_run FOLDER="${folder#"$root"}" bash -euc 'cd "$FOLDER" && ./configure --prefix=/usr --libdir=/usr/lib &&
		make -C src install CFLAGS="-O2 -fPIC" && make liburing.pc && install -D -m 644 liburing.pc /usr/lib/pkgconfig/liburing.pc' \
		>"$roots/$suite.log" 2>&1 || roots_fail "liburing was not built; all of it: $roots/$suite.log"
}

prepare_bullseye() {
	roots_make "$suite" "$suite" "" gcc libc6-dev make cmake pkg-config ccache check libzstd-dev libxxhash-dev libjson-c-dev
	[[ -e $root/usr/lib/pkgconfig/liburing.pc ]] || (build_liburing)
	options=(-DUFFDWP_TOOLS=OFF -DUFFDWP_BENCH=OFF -DUFFDWP_NBD=OFF -DUFFDWP_NUMA=OFF -DUFFDWP_TEST_GROUPS=unit)
}

tests=()
options=()
case $suite in
trixie) prepare_trixie ;;
bullseye) prepare_bullseye ;;
esac
roots_scratch "$root/build"
tree=${scratch#"$root"}
roots_run CCACHE_BASEDIR="$tree" cmake -S /src -B "$tree" "${options[@]}"
roots_run CCACHE_BASEDIR="$tree" cmake --build "$tree" -j "$(nproc)"
status=0
# shellcheck disable=SC2016 # the inner shell replaces these
roots_run bash -c 'cd "$0" && exec ctest --output-on-failure -j "$(nproc)" "$@"' "$tree" "${tests[@]}" 2>&1 |
	tee "$scratch/log" || status=1
roots_summary "$(roots_run sh -c 'cc --version | head -n 1; ldd --version | head -n 1' | paste -sd ',')" "$scratch/log"
exit "$status"
