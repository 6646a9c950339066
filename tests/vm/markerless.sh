#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds the kernel that this library exists for: it accepts write protection on shared memory and has no PTE markers,
# so that whatever empties a page-table entry takes the wp bit along, and the next write passes unseen. usage:
# markerless.sh SOURCE_TREE IMAGE
#
# Mainline without CONFIG_PTE_MARKER_UFFD_WP refuses such a registration. Two edits of the tree let it through; they are
# made by pattern, so that they hold for a few releases, and each must fit exactly once or the build is refused.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
[[ $# -eq 2 && -d $1 ]] || {
	echo "usage: markerless.sh SOURCE_TREE IMAGE" >&2
	exit 2
}
image=$(realpath "$2")
cd "$1"

# edit FILE PATTERN REPLACEMENT: over the whole text; the pattern is perl's.
edit() {
	PATTERN=$2 REPLACEMENT=$3 perl -0777 -pi -e '
		s/$ENV{PATTERN}/$ENV{REPLACEMENT}/sg == 1
			or die "$ARGV is not as expected: it is no tree that this script knows\n";
	' "$1"
}

# vma_can_userfault(): registering needs no markers any more.
edit mm/userfaultfd.c \
	'if \(!uffd_supports_wp_marker\(\) && \(vm_flags & VM_UFFD_WP\) &&\s*!vma_is_anonymous\(vma\)\)\s*return false;' ''
# userfaultfd_wp_use_markers(): shared memory has none.
edit include/linux/userfaultfd_k.h \
	'userfaultfd_wp_use_markers\(struct vm_area_struct \*vma\)\n\{(?:(?!\n\}).)*?if \(!vma_is_anonymous\(vma\)\)\s*return \Ktrue;' \
	'uffd_supports_wp_marker();'

{
	make tinyconfig
	scripts/kconfig/merge_config.sh -m .config "$here/markerless.config"
	make olddefconfig
} >config.log 2>&1 || {
	tail -n 1 config.log >&2
	exit 1
}
for line in CONFIG_USERFAULTFD=y '# CONFIG_PTE_MARKER_UFFD_WP is not set'; do
	grep -qxF "$line" .config || {
		echo "the configuration came out without: $line" >&2
		exit 1
	}
done
make -j"$(nproc)" bzImage >build.log 2>&1 || {
	grep -m 1 -E 'error:|Error [0-9]|[Nn]o such file|not found' build.log >&2 || tail -n 1 build.log >&2
	exit 1
}
cp arch/x86/boot/bzImage "$image"
