#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Makes the world of the guests: one archive (cpio) with busybox, the programs under test, and the libraries that these
# are linked with, each at the path where the loader looks for it. Kernel modules and the plan come with each boot.
# usage: world.sh BUILD_FOLDER ARCHIVE
set -euo pipefail
here=$(dirname "$(realpath "$0")")
[[ $# -eq 2 && -d $1 ]] || {
	echo "usage: world.sh BUILD_FOLDER ARCHIVE" >&2
	exit 2
}
build=$(realpath "$1")
archive=$2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# Without the text for debuggers, which is most of a program.
take_program() {
	local from=$1 to=$2
	mkdir -p "$(dirname "$to")"
	cp -L "$from" "$to"
	strip --strip-debug "$to" 2>/dev/null || true
	ldd "$from" 2>/dev/null | grep -oE '/[^ ]+' >>"$root/.libraries" || true
}

take_libraries() {
	local library
	sort -u "$root/.libraries" | while read -r library; do
		mkdir -p "$root$(dirname "$library")"
		cp -L "$library" "$root$library"
	done
	rm "$root/.libraries"
}

mkdir -p "$root"/{bin,etc,modules}
cp "$(command -v busybox)" "$root/bin/busybox"
install -m 755 "$here/guest/init" "$root/init"
printf 'root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"

for program in "$build"/tests/kernel_* "$build"/tests/uffdwp_vm_* "$build"/bin/uffdwp-ctl "$build"/bin/uffdwp-dirty \
	"$build"/bin/uffdwp-bank "$(command -v sqlite3)" "$(command -v setpriv)"; do
	[[ -x $program && ! -d $program ]] || continue
	take_program "$program" "$root/world/bin/$(basename "$program")"
done
take_program "$build/lib/uffdwp_sqlite.so" "$root/world/lib/uffdwp_sqlite.so"
take_program "$build/lib/libuffdwp-fork.so" "$root/world/lib/libuffdwp-fork.so"
# Programs on the C library's malloc(3) are given this one.
allocator=$(ldconfig -p | sed -n 's|^\tlibjemalloc.so.2 .*=> ||p' | head -n 1)
[[ -z $allocator ]] || take_program "$allocator" "$root$allocator"
for library in "$build"/lib/libuffdwp.so.[0-9]; do
	take_program "$library" "$root/world/lib/$(basename "$library")"
	ln -s "$(basename "$library")" "$root/world/lib/libuffdwp.so"
done
# No program is linked with this one: the C library loads it when a thread is cancelled or calls pthread_exit(3).
realpath "$(cc -print-file-name=libgcc_s.so.1)" >>"$root/.libraries"
take_libraries

(cd "$root" && find . -mindepth 1 | LC_ALL=C sort | cpio -o -H newc --quiet) >"$archive"
