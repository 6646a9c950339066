#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs the Debian packages that the project needs: only those that are missing, and nothing at all (no root, no
# network) where none is. Asks no questions and needs no terminal.
set -euo pipefail

usage() {
	cat <<'END'
usage: tools/install-deps.sh [--list] GROUP...

Groups:
  quickstart  what tools/quickstart.sh is built from and uses: the fewest packages, no CMake, no service
  build   compiler, CMake and the libraries that libuffdwp and its tools are made from
  test    what the tests use beside that
  check   what .ci/run uses beside that: clang and the checkers
  reach   what tests/debian.sh, musl.sh and aarch64.sh use: systems of other suites, musl, sources of packages
  package what Debian packages are made with, beside what debian/control asks for (apt-get build-dep .)
  coverage what tests/coverage.sh uses beside build and test
  vm      what tests/vm/run.sh uses: an emulator, what its guests are made of, and what a kernel is built with

  --list  print the packages that are missing instead of installing them
END
}

# Allocators other than jemalloc, and Python's own tests; their packages have other names in other releases.
test_extras() {
	if grep -q '^VERSION_CODENAME=bookworm' /etc/os-release; then
		echo libmimalloc2.0 libtcmalloc-minimal4 libpython3.11-testsuite
	fi
}

packages_of() {
	case $1 in
	quickstart) echo gcc libc6-dev liburing-dev libnuma-dev libzstd-dev libxxhash-dev libsqlite3-dev libjson-c-dev sqlite3 ;;
	build)
		echo gcc g++ libc6-dev binutils make cmake pkg-config liburing-dev libnuma-dev libzstd-dev libxxhash-dev \
			libsqlite3-dev libjson-c-dev libgc-dev libnbd-dev systemtap-sdt-dev
		;;
	test)
		echo check sqlite3 util-linux mount coreutils python3 python3-cffi python3-numpy redis-tools libxml2-utils gnuplot-nox \
			nbdkit libnbd-bin libjemalloc2 groff-base mandoc "$(test_extras)"
		;;
	# man-db enables a timer, which the README's commands do not want on a user's machine.
	check) echo clang libclang-rt-14-dev clang-format clang-tidy cppcheck shellcheck git man-db ;;
	reach) echo debootstrap debian-archive-keyring dpkg-dev musl-tools mount util-linux ;;
	package) echo build-essential debhelper dpkg-dev lintian ;;
	coverage) echo gcc gcovr ;;
	vm)
		echo qemu-system-x86 busybox-static cpio kmod xz-utils zstd debian-archive-keyring \
			flex bison bc perl libelf-dev libssl-dev
		;;
	*)
		echo "install-deps.sh: unknown group '$1' (quickstart, build, test, check, reach, package, coverage, vm)" >&2
		exit 2
		;;
	esac
}

is_installed() {
	[[ $(dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | head -n 1) == installed ]]
}

require_debian() {
	command -v dpkg-query >/dev/null && return
	echo "install-deps.sh: this is no Debian system: install the equivalents of these yourself: $*" >&2
	exit 1
}

require_root() {
	[[ $(id -u) -eq 0 ]] && return
	echo "install-deps.sh: as root, run: apt-get install $*" >&2
	exit 1
}

install_packages() {
	local apt=(apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
	export DEBIAN_FRONTEND=noninteractive
	echo "installing: $*"
	"${apt[@]}" update </dev/null
	"${apt[@]}" install -y --no-install-recommends "$@" </dev/null
}

list_only=0
wanted=()
for argument in "$@"; do
	case $argument in
	--help | -h)
		usage
		exit 0
		;;
	--list) list_only=1 ;;
	*)
		read -ra more <<<"$(packages_of "$argument")"
		wanted+=("${more[@]}")
		;;
	esac
done
if [[ ${#wanted[@]} -eq 0 ]]; then
	usage >&2
	exit 2
fi

require_debian "${wanted[@]}"
missing=()
for package in "${wanted[@]}"; do
	is_installed "$package" || missing+=("$package")
done
if [[ $list_only -eq 1 ]]; then
	echo "${missing[*]}"
elif [[ ${#missing[@]} -gt 0 ]]; then
	require_root "${missing[@]}"
	install_packages "${missing[@]}"
fi
