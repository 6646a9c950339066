#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs the build into a scratch folder, compiles each example from where it was installed with what pkg-config says and
# nothing else, without a warning, and runs it.
set -euo pipefail

: "${UFFDWP_BUILD:?run by ctest}" "${CC:?}"
if [[ -n ${UFFDWP_SANITIZE:-} ]]; then
	echo "skipped: a library with sanitizers does not link with programs that know nothing of them"
	exit 77
fi

scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-examples.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
prefix=$scratch/usr

cmake --install "$UFFDWP_BUILD" --prefix "$prefix" >"$scratch/install.log"
pc=$(find "$prefix" -name uffdwp.pc)
export PKG_CONFIG_PATH=${pc%/*} LD_LIBRARY_PATH=${pc%/pkgconfig/*}
read -ra flags <<<"$(pkg-config --cflags --libs uffdwp)"
[[ ${flags[*]} == *"$prefix"* ]] || {
	echo "pkg-config finds another library: ${flags[*]}"
	exit 1
}

mapfile -t sources < <(find "$prefix" -path '*/uffdwp/examples/*.c' | sort)
[[ ${#sources[@]} -gt 0 ]] || {
	echo "no example was installed"
	exit 1
}
ran=0
cd "$scratch"
for source in "${sources[@]}"; do
	name=$(basename "$source" .c)
	echo "== $name"
	"$CC" -Wall -Wextra -Wconversion -Werror "$source" -o "example-$name" "${flags[@]}"
	status=0
	"./example-$name" || status=$?
	case $status in
	0) ran=$((ran + 1)) ;;
	77) echo "not tested here: $name is refused by this machine" ;;
	*) exit "$status" ;;
	esac
done
rm -f example-*
left=$(find . -mindepth 1 -maxdepth 1 ! -name usr ! -name install.log)
[[ -z $left ]] || {
	echo "the examples left files: $left"
	exit 1
}
echo "${#sources[@]} examples compiled against the installed library, $ran of them run"
if [[ $ran -eq 0 ]]; then
	echo "skipped: each example is refused by this machine"
	exit 77
fi
