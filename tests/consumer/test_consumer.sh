#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs the build into a scratch folder, then builds and runs two users of the installed library: one in C99 that
# finds it by pkg-config, one in C++ that finds it by find_package(); each against the shared and the static library.
set -euo pipefail

: "${UFFDWP_SOURCE:?run by ctest}" "${UFFDWP_BUILD:?}" "${CC:?}" "${CXX:?}"
if [[ -n ${UFFDWP_SANITIZE:-} ]]; then
	echo "skipped: a library with sanitizers does not link with programs that know nothing of them"
	exit 77
fi

scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-consumer.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
here=$UFFDWP_SOURCE/tests/consumer
prefix=$scratch/usr

cmake --install "$UFFDWP_BUILD" --prefix "$prefix" >"$scratch/install.log"
for file in man/man3/uffdwp_open.3 man/man7/uffdwp-caveats.7 doc/uffdwp/FORMAT.md doc/uffdwp/PROTOCOL.md; do
	[[ -s $prefix/share/$file ]] || {
		echo "share/$file was not installed"
		exit 1
	}
done
pc=$(find "$prefix" -name uffdwp.pc)
libdir=$(dirname "$(dirname "$pc")")
export PKG_CONFIG_PATH=$libdir/pkgconfig LD_LIBRARY_PATH=$libdir

# The prefix that the library was configured for is not the one that it was installed to.
pkg() {
	pkg-config --define-variable=prefix="$prefix" --define-variable=libdir="$libdir" \
		--define-variable=includedir="$prefix/include" "$@" uffdwp
}

# Runs a program and passes on that there is no userfaultfd here.
check() {
	local status=0
	echo "run: $1"
	"$scratch/$1" "$scratch/$1.img" || status=$?
	if [[ $status -eq 77 ]]; then
		echo "skipped: no userfaultfd here"
		exit 77
	fi
	return "$status"
}

strict=(-std=c99 -pedantic-errors -Wall -Wextra -Werror)
read -ra flags <<<"$(pkg --cflags --libs)"
"$CC" "${strict[@]}" "$here/consumer.c" -o "$scratch/c-shared" "${flags[@]}"
read -ra flags <<<"$(pkg --static --cflags --libs)"
"$CC" "${strict[@]}" -static "$here/consumer.c" -o "$scratch/c-static" "${flags[@]}"

cmake -S "$here" -B "$scratch/cxx" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_CXX_COMPILER="$CXX" \
	-DCMAKE_RUNTIME_OUTPUT_DIRECTORY="$scratch" >"$scratch/cmake.log"
cmake --build "$scratch/cxx" >>"$scratch/cmake.log" || {
	cat "$scratch/cmake.log"
	exit 1
}

ldd "$scratch/c-shared" | grep "$libdir/libuffdwp.so" >/dev/null # not -q, which leaves: ldd would die of it
for program in c-shared c-static consumer-shared consumer-static; do
	check "$program"
done
echo "4 programs built against the installed library and run"
