#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Systems to build and test in that are not this machine's: other suites of Debian, under chroot. Sourced, never run, by
# scripts of tests/ that are in the project's folder. A system is made once by debootstrap and kept in $UFFDWP_ROOTS
# (/var/tmp/uffdwp-roots), which may be removed at any time. Packages and sources come from the mirror that this machine's
# own apt configuration names, and are checked against Debian's keys. Nothing of this machine is changed; mounts are made in
# a namespace of their own, and end with it.
#
# What the mirror does not have is named, and the script ends with 0; whatever else hinders it fails.
set -euo pipefail
export LC_ALL=C.UTF-8
roots=${UFFDWP_ROOTS:-/var/tmp/uffdwp-roots}
roots_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
roots_locks=(/var/tmp/uffdwp-settings.lock /var/tmp/uffdwp-settings-turn.lock) # support/settings.c
roots_project=$PWD # what is at /src, read-only; empty: what the system has there itself
roots_apt=(apt-get -q -o Acquire::Retries=3 -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none)

roots_fail() {
	echo "${0##*/}: FAILED: $*" >&2
	exit 1
}

# One at a time works on what is kept under this name.
roots_hold() {
	mkdir -p "$roots"
	exec {roots_held}>>"$roots/$1.lock"
	flock "$roots_held"
}

# A folder that is removed at the end, in the one that is named.
roots_scratch() {
	mkdir -p "$1"
	scratch=$(mktemp -d "$1/uffdwp-XXXXXX")
	trap 'rm -rf --one-file-system "$scratch"' EXIT
	trap 'exit 130' INT TERM
}

# The archive is known by its origin; before the first update only its path is known.
# shellcheck disable=SC2016 # apt replaces these
roots_mirror() {
	local mirror
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
		awk '$3 == "main" && $2 !~ /-security$/ &&
			($4 == "Debian" || ($4 !~ /^[A-Z]/ && $1 ~ /\/debian\/?$/)) && !found++ { print $1 }')
	[[ -n $mirror ]] || roots_fail "this machine's apt configuration names no mirror of Debian"
	echo "$mirror"
}

# What is not available, and the log that says why, without addresses of mirrors.
roots_not_had() {
	if grep -qE ' 404 |does not have a Release file|Failed getting release file' "$2"; then
		echo "not tested here: $1: the mirror does not have it"
		exit 0
	fi
	tail -n 5 "$2" | sed -E 's|[a-z]+://[^ ]*|(mirror)|g' >&2
	roots_fail "$1 is not available; all of it: $2"
}

# How mirrors are reached is this machine's matter: proxies, certificates.
roots_copy_network() {
	local part
	for part in apt.conf apt.conf.d; do
		[[ ! -e /etc/apt/$part ]] || cp -rL "/etc/apt/$part" "$root/etc/apt/"
	done
	cp -L /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true
	[[ ! -d /usr/local/share/ca-certificates ]] || cp -r /usr/local/share/ca-certificates "$root/usr/local/share/"
	mkdir -p "$root/etc/ssl"
	cp -rL /etc/ssl/certs "$root/etc/ssl/" 2>/dev/null || true
}

# Runs a command in the system, with an environment of its own: NAME=VALUE before the command adds to it. The project is
# at /src. Tests inside and outside take turns by the same files: the kernel is one.
roots_run() {
	local lock
	mkdir -p "$root/src"
	for lock in "${roots_locks[@]}"; do
		: >>"$lock"
		: >>"$root$lock"
	done
	# shellcheck disable=SC2016 # the inner shell replaces these
	unshare --mount --propagation private bash -euc '
		root=$1 project=$2 locks=$3
		shift 3
		mount -t proc proc "$root/proc"
		mount -t sysfs -o ro sys "$root/sys"
		mount --bind /dev "$root/dev"
		mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
		for lock in $locks; do
			mount --bind "$lock" "$root$lock"
		done
		if [[ -n $project ]]; then
			mount --bind "$project" "$root/src"
			mount -o remount,bind,ro "$root/src"
		fi
		exec chroot "$root" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
			PATH=/usr/lib/ccache:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
	' roots "$root" "$roots_project" "${roots_locks[*]}" "$@" </dev/null
}

# Makes a system, or takes the one that is there, installs packages in it, and sets `root` to its folder.
# usage: roots_make NAME SUITE ARCHITECTURE PACKAGE... ("" or a second architecture)
roots_make() {
	local suite=$2 foreign=$3 log=$roots/$1.log mirror
	root=$roots/$1
	shift 3
	[[ $(id -u) -eq 0 ]] || roots_fail "root is needed for chroot"
	[[ -r $roots_keyring && -x $(command -v debootstrap) ]] ||
		roots_fail "debootstrap or Debian's keys are missing: tools/install-deps.sh reach"
	if [[ ! -e $root/made ]]; then
		echo "making a system of $suite in $root"
		mirror=$(roots_mirror)
		rm -rf --one-file-system "$root"
		debootstrap --variant=minbase --keyring="$roots_keyring" "$suite" "$root" "$mirror" >"$log" 2>&1 </dev/null ||
			roots_not_had "a system of $suite" "$log"
		roots_copy_network
		echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/fast"
		[[ -z $foreign ]] || roots_run dpkg --add-architecture "$foreign"
		: >"$root/made"
	fi
	[[ $(<"$root/made") == "$*" ]] || {
		{ roots_run "${roots_apt[@]}" update && roots_run "${roots_apt[@]}" install -y --no-install-recommends "$@" &&
			roots_run apt-get clean; } >"$log" 2>&1 || roots_not_had "packages of $suite" "$log"
		echo "$*" >"$root/made"
	}
}

# Copies a bare system, which is kept, to $scratch/root, where it may be changed, and sets `root` to that. It has no package
# but those of minbase. usage: roots_copy_bare SUITE
roots_copy_bare() {
	local bare=bare-$1
	roots_hold "$bare"
	roots_make "$bare" "$1" ""
	cp -a --reflink=auto "$root" "$scratch/root"
	flock -u "$roots_held"
	root=$scratch/root
	rm "$root/made"
}

# Unpacks source packages of this machine's own suite into a folder: FOLDER/NAME-VERSION.
roots_sources() {
	local folder=$1 log=$1/log suite mirror options
	shift
	mirror=$(roots_mirror)
	# shellcheck disable=SC1091
	suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
	mkdir -p "$folder/apt/lists/partial"
	echo "deb-src [signed-by=$roots_keyring] $mirror $suite main" >"$folder/apt/sources.list"
	options=(-o "Dir::Etc::sourcelist=$folder/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o "Dir::State::Lists=$folder/apt/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=
		-o Debug::NoLocking=1)
	{ "${roots_apt[@]}" "${options[@]}" -o APT::Update::Error-Mode=any update &&
		(cd "$folder" && "${roots_apt[@]}" "${options[@]}" source "$@"); } >"$log" 2>&1 </dev/null ||
		roots_not_had "the sources of $*" "$log"
}

# The end of a test run's output, as tests/run.sh has it.
roots_summary() {
	echo
	echo "build: $1"
	grep -E '\*\*\*(Failed|Timeout|Exception|Not Run|Skipped)' "$2" | sed 's/^/  /' || true
	grep -E '^[0-9]+% tests passed' "$2" || true
}
