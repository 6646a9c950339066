#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The Debian packages: built from the sources that git knows, by a user without rights and without a network, in a system of
# Debian 12 that has what debian/control asks for; looked at by lintian; installed by apt in a fresh copy of a bare system
# (roots.sh), where each test of debian/tests is run; and purged, after which no file is left.
# usage: tests/packages.sh [--no-install] [--keep FOLDER]
#
#   --keep FOLDER   copy the packages to that folder
#
# Exit code: 0, also where it cannot be tried here (no root, no mirror), which is named; 1 when something is amiss; 2: a
# wrong argument.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/roots.sh
. tests/roots.sh

suite=bookworm
keep=
install=1
while [[ $# -gt 0 ]]; do
	case $1 in
	--no-install) install=0 ;;
	--keep) keep=${2:?} && shift ;;
	*)
		sed -n '3,/^set /{/^set /!s/^# \{0,1\}//p}' "$0" >&2
		exit 2
		;;
	esac
	shift
done

skip() {
	echo "not tested here: packages: $*"
	exit 0
}

say() {
	echo "packages: $*, $SECONDS s"
}

# usage: fetching WHAT COMMAND... a command that takes packages from the mirror, which may not have them
fetching() {
	local what=$1
	shift
	"$@" >"$scratch/log" 2>&1 || roots_not_had "$what" "$scratch/log"
}

# The end of the log beside what failed: it is removed with all else.
failed() {
	tail -n 60 "$scratch/log"
	roots_fail "$*"
}

version=$(sed -nE 's/#define UFFDWP_VERSION_(MAJOR|MINOR|PATCH) //p' include/uffdwp/runtime.h | paste -sd .)
changelog=$(sed -nE '1s/.*\((.*)\).*/\1/p' debian/changelog)
[[ ${changelog%-*} == "$version" ]] ||
	roots_fail "debian/changelog has version $changelog, include/uffdwp/runtime.h has $version"

# The source package: the files that git knows, as they are now.
make_source() {
	local tree=$build/uffdwp-$version
	mkdir "$build" "$tree"
	git ls-files -z | tar --null -T - -c | tar -x -C "$tree"
	tar -cJf "$build/uffdwp_$version.orig.tar.xz" -C "$build" --exclude="uffdwp-$version/debian" "uffdwp-$version"
	roots_run chown -R builder: /build/packages
}

# Two systems: a bare one, and one that has what packages are made with and what debian/control asks for beside it.
prepare_systems() {
	roots_copy_bare "$suite"
	bare=$root
	roots_hold "packages-$suite"
	[[ -e $roots/packages-$suite/made ]] || {
		rm -rf --one-file-system "${roots:?}/packages-$suite"
		cp -a --reflink=auto "$bare" "$roots/packages-$suite"
		: >"$roots/packages-$suite/made"
	}
	roots_make "packages-$suite" "$suite" "" ccache
	build=$root/build/packages # the same one each time: objects are kept by its name
	rm -rf --one-file-system "$build"
	mkdir -p "${build%/*}"
	trap 'rm -rf --one-file-system "$build" "$scratch"' EXIT
	fetching "packages of $suite" roots_run bash -euc '
		/src/tools/install-deps.sh package
		id builder >/dev/null 2>&1 || useradd --create-home builder
		dpkg-checkbuilddeps /src/debian/control 2>/dev/null ||
			{ apt-get -q update && apt-get -q build-dep -y --no-install-recommends /src; }'
}

# usage: as_builder COMMAND... by a user without capabilities, in a namespace without a network
as_builder() {
	roots_run CCACHE_DIR=/home/builder/.ccache DEB_BUILD_OPTIONS="parallel=$(nproc)" unshare --net \
		setpriv --reuid=builder --regid=builder --init-groups --inh-caps=-all --bounding-set=-all --no-new-privs \
		sh -c 'cd /build/packages/uffdwp-*/ && HOME=/home/builder exec "$@"' sh "$@"
}

# Tags of severity info and below are left to a reader of lintian(1).
look_at_packages() {
	local suppressed=initial-upload-closes-no-bugs # Debian has no bug that asks for these packages
	[[ -d $build/uffdwp-$version/debian/uffdwp-tools/usr/share/man ]] || suppressed+=,no-manual-page # there are none yet
	as_builder lintian --info --fail-on error,warning --suppress-tags "$suppressed" || roots_fail "lintian"
}

# What the tests of debian/tests need beside the packages themselves.
needs_of_tests() {
	sed -nE 's/^Depends: //p' debian/tests/control | tr -d ' ' | tr , '\n' | sort -u |
		grep -vxFf <(sed -nE 's/^Package: //p' debian/control)
}

run_tests() {
	local names name status
	mapfile -t names < <(sed -nE 's/^Tests: //p' debian/tests/control)
	for name in "${names[@]}"; do
		status=0
		# shellcheck disable=SC2016 # the inner shell replaces it
		roots_run bash -c 'export AUTOPKGTEST_TMP=$(mktemp -d) && cd /src && timeout 300 "debian/tests/$0"' "$name" \
			>"$scratch/log" 2>&1 || status=$?
		[[ $status -eq 0 || $status -eq 77 ]] || failed "debian/tests/$name: exit code $status"
		grep -E '^(skipped|not tested here):' "$scratch/log" || true
		say "debian/tests/$name: $([[ $status -eq 77 ]] && echo skipped || echo passed)"
	done
}

# Files that have the project's name, but for what this script, roots_run and man(1), which keeps what it rendered, made.
files_left() {
	find "$root" -xdev \( -path "$root/src" -o -path "$root/tmp" -o -path "$root/debs" -o -path "$root/var/cache/man" \) -prune -o \
		-iname '*uffdwp*' ! -path "$root/var/tmp/*.lock" -print
}

purge() {
	local packages files file
	mapfile -t packages < <(sed -nE 's/^Package: //p' debian/control)
	mapfile -t files < <(roots_run dpkg -L "${packages[@]}" | sort -u)
	[[ -n $(files_left) ]] || roots_fail "the packages installed nothing"
	roots_run "${roots_apt[@]}" purge -y "${packages[@]}" >"$scratch/log" 2>&1 || failed "apt purge"
	for file in "${files[@]}"; do
		[[ ! -e $root$file || -d $root$file ]] || roots_fail "$file is left after purge"
	done
	[[ -z $(files_left) ]] || roots_fail "files are left after purge: $(files_left | tr '\n' ' ')"
	say "purged, none of $(wc -w <<<"${files[*]}") files is left"
}

[[ $(id -u) -eq 0 ]] || skip "root is needed"
command -v apt-get >/dev/null || skip "there is no apt"
(roots_mirror) >/dev/null 2>&1 || skip "this machine's apt configuration names no mirror of Debian"
[[ $install -eq 0 ]] || ./tools/install-deps.sh reach
roots_scratch "$roots"
prepare_systems
say "the systems are ready"
make_source
as_builder dpkg-buildpackage --no-sign >"$scratch/log" 2>&1 || failed dpkg-buildpackage
grep -E '^[0-9]+% tests passed' "$scratch/log" || roots_fail "the build ran no tests"
say "built"
look_at_packages
say "lintian has no errors and no warnings"
[[ -z $keep ]] || cp "$build"/uffdwp_* "$build"/*.deb "$keep"
root=$bare
mkdir "$root/debs"
cp "$build"/*.deb "$root/debs"
rm "$root"/debs/*-dbgsym_*
debs=("$root"/debs/*.deb)
fetching "a list of packages" roots_run "${roots_apt[@]}" update
fetching "what the packages depend on" roots_run "${roots_apt[@]}" install -y --no-install-recommends "${debs[@]#"$root"}"
say "installed: ${debs[*]##*/}"
mapfile -t needs < <(needs_of_tests)
fetching "packages that the tests need" roots_run "${roots_apt[@]}" install -y --no-install-recommends "${needs[@]}"
run_tests
purge
