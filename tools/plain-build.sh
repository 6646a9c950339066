#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds what tools/quickstart.sh runs (uffdwp-bank, uffdwp-ctl, uffdwp_sqlite.so) with the compiler alone, where there is no
# CMake: a third of the packages. Without network block devices and without probe points. Objects that are newer than all
# sources are kept.
# usage: tools/plain-build.sh FOLDER
set -euo pipefail
[[ $# -eq 1 ]] || {
	echo "usage: tools/plain-build.sh FOLDER" >&2
	exit 2
}
mkdir -p "$1"/{bin,lib,plain}
folder=$(realpath "$1")
cd "$(dirname "$0")/.."
export CC=${CC:-cc}
export FLAGS="-std=gnu17 -O2 -g -fPIC -fvisibility=hidden -fno-common -fstack-protector-strong -pthread -D_GNU_SOURCE
	-Iinclude -Ilib"
libraries=(-luring -lnuma -lzstd -ljson-c -ldl -pthread)

# The sources that a CMakeLists.txt names for a target.
sources_of() {
	sed -nE "s/^add_(library|executable)\($2 (MODULE )?([a-z_. ]*)\)$/\3/p" "tools/$1/CMakeLists.txt" |
		tr ' ' '\n' | sed "s|^|tools/$1/|"
}

# Compiles what is read, and prints the objects; further arguments are the compiler's.
compile() {
	local sources
	mapfile -t sources
	# shellcheck disable=SC2016 # the inner shell replaces these
	printf '%s\n' "${sources[@]}" | FOLDER=$folder/plain xargs -P "$(nproc)" -I{} bash -c '
		object=$FOLDER/$(tr / _ <<<"${1%.c}").o
		if [[ ! -e $object || -n $(find lib include tools -name "*.[ch]" -newer "$object" -print -quit) ]]; then
			$CC $FLAGS "${@:2}" -c "$1" -o "$object"
		fi' plain {} "$@"
	printf '%s\n' "${sources[@]}" | sed -E "s|/|_|g; s|\.c$|.o|; s|^|$folder/plain/|"
}

mapfile -t library < <(find lib -name '*.c' ! -name nbdlink.c ! -name pack_none.c ! -name nodes_none.c ! -name ask_none.c | sort | compile)
# As CMake makes it: what is inside keeps its names to itself, the programs have functions of the same names.
$CC -r -nostdlib -o "$folder/plain/archived.o" "${library[@]}"
objcopy --wildcard --keep-global-symbol='uffdwp_*' "$folder/plain/archived.o"
rm -f "$folder/lib/libuffdwp.a"
ar rcs "$folder/lib/libuffdwp.a" "$folder/plain/archived.o"
mapfile -t extension < <(sources_of sqlite uffdwp_sqlite | compile)
$CC -shared -o "$folder/lib/uffdwp_sqlite.so" "${extension[@]}" "$folder/lib/libuffdwp.a" "${libraries[@]}" \
	-Wl,--exclude-libs,ALL -Wl,-z,nodelete -Wl,--no-undefined
mapfile -t bank < <(sources_of sqlite uffdwp-bank | compile)
$CC -o "$folder/bin/uffdwp-bank" "${bank[@]}" -lsqlite3 -pthread
mapfile -t ctl < <({
	grep -oE '\$\{PROJECT_SOURCE_DIR\}/[a-z_/]+\.c' tools/uffdwp-ctl/CMakeLists.txt | sed 's|^[^/]*/||'
	find tools/common tools/uffdwp-ctl -name '*.c'
} | sort | compile -Itools/common -Itools/fork "-DUFFDWP_MODULEDIR=\"/usr/local/lib/uffdwp\"" "-DUFFDWP_MODULEDIR_FROM_BIN=\"../lib/uffdwp\"")
$CC -o "$folder/bin/uffdwp-ctl" "${ctl[@]}" "$folder/lib/libuffdwp.a" -ljson-c "${libraries[@]}"
echo "built in $folder, without CMake"
