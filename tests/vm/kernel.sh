#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Gets a kernel to boot, and prints where it is. A kernel has a name: what it stands for is in `suites_of`. It comes out
# of the distribution's packages, unpacked into the cache and never installed, or is built from the distribution's
# source (markerless). Once in the cache nothing is asked of the network again, unless --update says so.
#
# What must never happen: the machine's own apt configuration or package lists change; a kernel appears in the cache
# half written (all is made under a temporary name and then renamed).
#
# A refusal is one line on stderr that says why, and exit code 1.
set -euo pipefail
shopt -s nullglob inherit_errexit
here=$(dirname "$(realpath "$0")")
cache=${UFFDWP_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/uffdwp-vm}
names=(5.10 6.1 6.12 newest markerless)
export LC_ALL=C.UTF-8

usage() {
	cat <<'END'
usage: tests/vm/kernel.sh [--update] NAME    get a kernel and print its path
       tests/vm/kernel.sh --list             the names, and what is in the cache

The cache is $UFFDWP_VM_CACHE, else $XDG_CACHE_HOME/uffdwp-vm, else ~/.cache/uffdwp-vm; it may be removed at any time.
END
}

die() {
	echo "$*" >&2
	exit 1
}

# Where a stock kernel is, the best place first. Places joined by + are asked together: the higher version is taken.
suites_of() {
	case $1 in
	5.10) echo "bullseye+bullseye-security bullseye" ;;
	6.1) echo "bookworm+bookworm-security bookworm" ;;
	6.12) echo "bookworm-backports trixie" ;;
	newest) echo "trixie-backports bookworm-backports" ;;
	esac
}

# Runs a function that may die, in a shell of its own; attempt_status is how it ended, its reason is in the file. (An
# `if` around it would switch -e off inside.)
attempt_status=0
attempt() {
	local reason=$1
	shift
	set +e
	(
		set -e
		"$@"
	) 2>"$reason"
	attempt_status=$?
	set -e
}

# --- apt, with lists of its own ---------------------------------------------------------------------------------

# The mirror that this machine's own apt configuration names for the suite, with or without "-security". Archives are
# distinguished from those of others by their origin; without package lists only the path is known.
mirror_of() {
	local is_security=0
	[[ $1 == *-security ]] && is_security=1
	# shellcheck disable=SC2016 # apt replaces these
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
		awk -v is_security="$is_security" '$3 == "main" && ($2 ~ /-security$/) == is_security &&
			($4 == "Debian" || ($4 !~ /^[A-Z]/ && $1 ~ /\/debian(-security)?\/$/)) && !found++ { print $1 }'
}

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

sources_of() {
	local suite mirror
	for suite in ${1//+/ }; do
		mirror=$(mirror_of "$suite")
		[[ -n $mirror ]] || die "this machine's apt configuration names no Debian mirror for $suite"
		echo "deb [signed-by=$keyring] $mirror $suite main"
	done
}

# Old suites are not signed anew every week: that their time has run out says nothing of their packages.
apt_options() {
	printf '%s\n' -q -o "Dir::Etc::sourcelist=$1/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o "Dir::State::Lists=$1/lists" -o Dir::State::status=/dev/null -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
		-o Acquire::Check-Valid-Until=false -o Acquire::Retries=3 -o Acquire::Languages=none -o APT::Sandbox::User= \
		-o APT::Architecture=amd64 -o APT::Architectures=amd64 -o Debug::NoLocking=1
}

# Why apt failed, without its addresses.
apt_reason() {
	if grep -qE ' 404 |does not have a Release file' "$1"; then
		echo "the mirror does not have it"
	elif grep -qE 'Hash Sum mismatch|is not signed|GPG error' "$1"; then
		echo "what came is not what was signed"
	else
		echo "the mirror cannot be reached"
	fi
}

# Fetches the lists of a place into the folder; the folder is what the other functions take.
apt_lists() {
	local place=$1 folder=$2 options
	mkdir -p "$folder/lists/partial"
	sources_of "$place" >"$folder/sources.list"
	mapfile -t options < <(apt_options "$folder")
	apt-get "${options[@]}" -o APT::Update::Error-Mode=any update >"$folder/log" 2>&1 ||
		die "$place is not available: $(apt_reason "$folder/log")"
}

apt_depends() {
	local folder=$1 package=$2 options
	mapfile -t options < <(apt_options "$folder")
	apt-cache "${options[@]}" depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
		"$package" 2>/dev/null | sed -nE 's/^ *\|?Depends: ([^<]*)$/\1/p'
}

# Downloads packages (apt checks them against the signed lists) and unpacks them into a folder.
apt_unpack() {
	local folder=$1 into=$2 options package
	shift 2
	mapfile -t options < <(apt_options "$folder")
	mkdir -p "$into" "$folder/packages"
	(cd "$folder/packages" && apt-get "${options[@]}" download "$@" >>"$folder/log" 2>&1) ||
		die "download of $* failed: $(apt_reason "$folder/log")"
	for package in "$folder"/packages/*.deb; do
		dpkg -x "$package" "$into"
	done
	rm -rf "$folder/packages"
}

# --- stock kernels ----------------------------------------------------------------------------------------------

# The cloud flavour is the small one. Newer ones have the image and the modules in packages of their own.
packages_of_kernel() {
	local folder=$1 image part
	image=$(apt_depends "$folder" linux-image-cloud-amd64 | grep -m 1 '^linux-image-') || return 1
	part=$(apt_depends "$folder" "$image" | grep -E '^linux-(binary|modules)-' || true)
	echo "${part:-$image}"
}

# modules.dep of a tree, so that boots only read it.
index_modules() {
	local tree
	for tree in "$1"/lib/modules/* "$1"/usr/lib/modules/*; do
		depmod -b "${tree%/lib/modules/*}" "$(basename "$tree")"
	done
}

# One place: the kernel under $2, or the reason why not.
stock_from() {
	local place=$1 into=$2 lists=$2.lists packages
	apt_lists "$place" "$lists"
	mapfile -t packages < <(packages_of_kernel "$lists")
	[[ -n ${packages[*]} ]] || die "$place has no kernel for cloud-amd64"
	apt_unpack "$lists" "$into" "${packages[@]}"
	index_modules "$into"
	rm -rf "${into:?}/usr/share" "${into:?}"/boot/System.map*
	[[ -n $(image_in "$into") ]] || die "$place: ${packages[*]} holds no kernel image"
}

image_in() {
	local images=("$1"/boot/vmlinuz* "$1"/lib/modules/*/vmlinuz* "$1"/usr/lib/modules/*/vmlinuz*)
	echo "${images[0]:-}"
}

get_stock() {
	local name=$1 work=$2 place reasons=()
	[[ -x $(command -v apt-get) && -r $keyring ]] || die "no apt, or no keyring of Debian, on this machine"
	for place in $(suites_of "$name"); do
		attempt "$work/reason" stock_from "$place" "$work/kernel"
		[[ $attempt_status -ne 0 ]] || return 0
		reasons+=("$(tail -n 1 "$work/reason")")
		rm -rf "$work"/kernel*
	done
	die "$(printf '%s; ' "${reasons[@]}" | sed 's/; $//')"
}

# --- the kernel without markers ---------------------------------------------------------------------------------

require_tools() {
	local tool missing=()
	for tool in "$@"; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	[[ ${#missing[@]} -eq 0 ]] || die "to build it these are missing: ${missing[*]} (tools/install-deps.sh vm)"
}

# The source package of a place, unpacked into $2.
source_from() {
	local place=$1 into=$2 lists=$2.lists source archives
	apt_lists "$place" "$lists"
	source=$(apt_depends "$lists" linux-source | grep -m 1 '^linux-source-') || die "$place has no linux-source"
	apt_unpack "$lists" "$into.package" "$source"
	archives=("$into".package/usr/src/linux-source-*.tar.xz)
	mkdir -p "$into"
	tar -C "$into" --strip-components=1 -xf "${archives[0]}" || die "$source could not be unpacked"
	rm -rf "$into.package"
}

get_markerless() {
	local work=$1 place
	require_tools gcc make flex bison bc tar xz perl
	for place in $(suites_of newest); do
		rm -rf "$work"/source*
		attempt "$work/reason" source_from "$place" "$work/source"
		[[ $attempt_status -ne 0 ]] || break
	done
	[[ $attempt_status -eq 0 ]] || die "no source of a kernel is available: $(tail -n 1 "$work/reason")"
	mkdir -p "$work/kernel/boot"
	"$here/markerless.sh" "$work/source" "$work/kernel/boot/vmlinuz" 2>"$work/reason" ||
		die "it could not be built: $(tail -n 1 "$work/reason")"
	markerless_key >"$work/kernel/key"
}

# What it was built by: the cached one is of no use when that has changed.
markerless_key() {
	cat "$here/markerless.sh" "$here/markerless.config" | sha256sum | cut -c 1-16
}

# --- the cache --------------------------------------------------------------------------------------------------

get() {
	local name=$1 work=$cache/.new-$1
	rm -rf "$work"
	mkdir -p "$work"
	# shellcheck disable=SC2064 # this folder
	trap "rm -rf '$work'" EXIT
	if [[ $name == markerless ]]; then
		get_markerless "$work"
	else
		get_stock "$name" "$work"
	fi
	rm -rf "${cache:?}/$name"
	mv "$work/kernel" "$cache/$name"
}

is_cached() {
	[[ -n $(image_in "$cache/$1") ]] || return 1
	[[ $1 != markerless || $(cat "$cache/markerless/key" 2>/dev/null) == "$(markerless_key)" ]]
}

list() {
	local name image version
	for name in "${names[@]}"; do
		image=$(image_in "$cache/$name")
		version=$([[ -z $image ]] || version_of "$image")
		printf '%-12s %s\n' "$name" "${version:-not in the cache}"
	done
}

# The version that a bzImage says it has: at the offset that its header names (Documentation/arch/x86/boot.rst).
version_of() {
	local offset
	offset=$(od -An -tu2 -j 526 -N 2 "$1" | tr -d ' ')
	tail -c +$((offset + 513)) "$1" | head -c 80 | tr '\0' '\n' | head -n 1 | cut -d ' ' -f 1
}

main() {
	local update=0 name
	[[ ${1:-} == --update ]] && update=1 && shift
	case ${1:-} in
	--help | -h) usage && return ;;
	--list) list && return ;;
	esac
	name=${1:-}
	[[ $# -eq 1 && " ${names[*]} " == *" $name "* ]] || {
		usage >&2
		exit 2
	}
	[[ $(uname -m) == x86_64 ]] || die "the kernels are for x86_64, this machine is $(uname -m)"
	mkdir -p "$cache" || die "$cache cannot be made"
	exec {lock}>"$cache/.lock-$name"
	flock "$lock"
	if [[ $update -eq 1 ]] || ! is_cached "$name"; then
		get "$name"
	fi
	echo "$cache/$name"
}

main "$@"
