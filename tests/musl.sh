#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The library with musl instead of glibc, and its unit tests, from a bare Debian machine. What musl's package lacks
# (liburing, zstd, Check) is built from Debian's sources and kept; libnuma, libnbd and json-c are left out.
# usage: tests/musl.sh [--no-install]
#
# Exit code: 0 when all tests passed, or the mirror has no sources, which is named; else 1.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/roots.sh
. tests/roots.sh
[[ ${1:-} == --no-install ]] || ./tools/install-deps.sh build reach
jobs=$(nproc)
roots_hold musl
roots_scratch "$roots"
prefix=$roots/musl

# musl's compiler, and with it the kernel's headers of this machine, without the C library's beside them.
make_compiler() {
	mkdir -p "$prefix"/{bin,kernel}
	ln -sfn /usr/include/linux "$prefix/kernel/linux"
	ln -sfn /usr/include/asm-generic "$prefix/kernel/asm-generic"
	ln -sfn "/usr/include/$(gcc -print-multiarch)/asm" "$prefix/kernel/asm"
	printf '#!/bin/sh\nexec musl-gcc "$@" -isystem %s/kernel\n' "$prefix" >"$prefix/bin/cc"
	chmod +x "$prefix/bin/cc"
}

make_libraries() {
	local cc=$prefix/bin/cc
	cd "$scratch"/liburing-*/
	./configure --prefix="$prefix" --libdir="$prefix/lib" --includedir="$prefix/include" --cc="$cc"
	make -C src install ENABLE_SHARED=0 CFLAGS='-O2 -fPIC'
	make liburing.pc
	install -D -m 644 liburing.pc "$prefix/lib/pkgconfig/liburing.pc"
	cd "$scratch"/libzstd-*/lib
	make -j "$jobs" PREFIX="$prefix" CC="$cc" MOREFLAGS=-fPIC ZSTD_LEGACY_SUPPORT=0 install-static install-includes install-pc
	cd "$scratch"/xxhash-*/
	install -m 644 xxhash.h "$prefix/include/"
	printf 'Name: xxhash\nDescription: its header\nVersion: 0.8.1\nCflags: -I%s/include\n' "$prefix" \
		>"$prefix/lib/pkgconfig/libxxhash.pc"
	cmake -S "$scratch"/check-*/ -B "$scratch/check" -DCMAKE_C_COMPILER="$cc" -DCMAKE_INSTALL_PREFIX="$prefix" \
		-DCMAKE_INSTALL_LIBDIR=lib -DCHECK_ENABLE_TESTS=OFF -DINSTALL_CHECKMK=OFF -DCMAKE_BUILD_TYPE=Release
	cmake --build "$scratch/check" -j "$jobs"
	cmake --install "$scratch/check"
	rm "$prefix"/lib/libcheck.so* # the static one is enough, and needs no search path
	sed -i 's/-lcheck_pic/-lcheck/' "$prefix/lib/pkgconfig/check.pc"
}

if [[ ! -e $prefix/made ]]; then
	echo "building liburing, zstd and Check for musl in $prefix"
	rm -rf "$prefix"
	make_compiler
	roots_sources "$scratch" liburing libzstd xxhash check
	if ! (set -e && make_libraries) >"$prefix.log" 2>&1; then
		tail -n 20 "$prefix.log" >&2
		roots_fail "a library for musl was not built; all of it: $prefix.log"
	fi
	: >"$prefix/made"
fi
export PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig
cmake -S . -B "$scratch/tree" -DCMAKE_C_COMPILER="$prefix/bin/cc" -DUFFDWP_TOOLS=OFF -DUFFDWP_BENCH=OFF \
	-DUFFDWP_NUMA=OFF -DUFFDWP_NBD=OFF -DUFFDWP_CONTROL=OFF -DUFFDWP_TEST_GROUPS=unit
cmake --build "$scratch/tree" -j "$jobs"
! readelf -d "$scratch/tree/lib/libuffdwp.so" | grep NEEDED | grep -v '\[libc\.so\]' || roots_fail "more than musl is needed"
status=0
ctest --test-dir "$scratch/tree" -j "$jobs" --output-on-failure --no-tests=error 2>&1 | tee "$scratch/log" || status=1
roots_summary "musl $(dpkg-query -W -f '${Version}' musl-dev), $(gcc --version | head -n 1)" "$scratch/log"
exit "$status"
