#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# All of the project cross-built for aarch64, warnings being errors, and its unit tests under qemu's user emulation; in a
# system of its own, which is kept. usage: tests/aarch64.sh [--no-install]
#
# Exit code: 0 when all tests passed, or the mirror has no packages for arm64, which is named; else 1.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/roots.sh
. tests/roots.sh
[[ ${1:-} == --no-install ]] || ./tools/install-deps.sh reach
triplet=aarch64-linux-gnu
roots_hold aarch64
roots_make aarch64 bookworm arm64 gcc-$triplet g++-$triplet make cmake pkg-config ccache qemu-user-static \
	libc6-dev:arm64 liburing-dev:arm64 libnuma-dev:arm64 libzstd-dev:arm64 libxxhash-dev:arm64 libsqlite3-dev:arm64 \
	libjson-c-dev:arm64 libgc-dev:arm64 libnbd-dev:arm64 check:arm64
roots_scratch "$root/build"
tree=${scratch#"$root"}
# The emulator knows neither userfaultfd nor PAGEMAP_SCAN: what asks the real kernel finds a machine without them.
roots_run PKG_CONFIG_LIBDIR=/usr/lib/$triplet/pkgconfig:/usr/share/pkgconfig CCACHE_BASEDIR="$tree" \
	cmake -S /src -B "$tree" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER=$triplet-gcc \
	-DCMAKE_CXX_COMPILER=$triplet-g++ -DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64-static
roots_run cmake --build "$tree" -j "$(nproc)"
status=0
echo "not tested here: unit_hostile: the emulator walks through the petabytes that hostile files claim"
roots_run ctest --test-dir "$tree" -L '^unit$' -E '^unit_hostile$' -j "$(nproc)" --output-on-failure --no-tests=error 2>&1 |
	tee "$scratch/log" || status=1
roots_summary "$(roots_run $triplet-gcc --version | head -n 1), under $(roots_run qemu-aarch64-static --version | head -n 1)" "$scratch/log"
exit "$status"
