#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The main job in one command: installs what is missing, builds, and saves a database in memory five times while writers
# go on; each image is verified by the stock sqlite3 program.
set -euo pipefail
cd_from=$PWD
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8

usage() {
	cat <<'END'
usage: tools/quickstart.sh [OPTION]... [DATABASE]

Takes a copy of DATABASE (a file of SQLite's; it is not changed), or generates a bank of 256 MiB, and saves it under load
by snapshots, by SQLite's online backup and by VACUUM INTO. Ends with "verified: 5/5" and exit code 0.

  --size=BYTES           of the generated database (256M)
  --delivery=NAME        who resolves a write fault: thread or inline
  --mechanism=NAME       how writes are caught: auto or marker
  --out=DIR              keep the images there
  --keep                 keep the images in a new folder, and print its name
  --no-install           take the packages that are there
  --help

Other options go to build/bin/uffdwp-bank, see its --help: --threads= --snapshots= --seconds= --think= --prepare= --json
END
}

die() {
	echo "quickstart.sh: $*" >&2
	exit 1
}

database=
out=
keep=0
install=1
size=256M
bank_options=()

parse() {
	local argument
	for argument in "$@"; do
		case $argument in
		--help | -h)
			usage
			exit 0
			;;
		--keep) keep=1 ;;
		--no-install) install=0 ;;
		--out=?*) out=$(absolute "${argument#*=}") ;;
		--size=*)
			size=${argument#*=}
			bank_options+=("$argument")
			;;
		--threads=* | --snapshots=* | --seconds=* | --think=* | --mechanism=* | --delivery=* | --prepare=* | --seed=* | --json)
			bank_options+=("$argument")
			;;
		-*)
			echo "quickstart.sh: unknown option '$argument', see --help" >&2
			exit 2
			;;
		*)
			[[ -z $database ]] || {
				echo "quickstart.sh: one database, not two: '$argument'" >&2
				exit 2
			}
			[[ -n $argument ]] || die "the path of the database is empty"
			database=$(absolute "$argument")
			;;
		esac
	done
}

# Paths are the caller's, not relative to this repository.
absolute() {
	case $1 in
	/*) echo "$1" ;;
	*) echo "$cd_from/$1" ;;
	esac
}

# A file that is not SQLite's begins with something else; an empty one is a database without tables.
check_database() {
	[[ -e $database ]] || die "$database: no such file"
	[[ -f $database ]] || die "$database: not a file"
	[[ -r $database ]] || die "$database: cannot be read by $(id -un)"
	[[ ! -s $database || $(head -c 15 "$database" | tr -d '\0') == "SQLite format 3" ]] ||
		die "$database: not a database of SQLite 3"
}

check_arguments() {
	[[ $size =~ ^[0-9]+[KkMmGg]?$ ]] || die "--size=$size: not a number of bytes with K, M or G behind it"
	[[ -z $out || (-d $out && -w $out) ]] || die "$out: not a folder that can be written"
	[[ -z $database ]] || check_database
}

wanted_mib() {
	local bytes
	if [[ -n $database ]]; then
		bytes=$(stat -Lc %s "$database")
	else
		bytes=$(numfmt --from=iec "${size^^}")
	fi
	echo $((bytes / 1048576 + 64))
}

# Five images, and at a time one of a rival's with what it needs beside.
check_room() {
	local image_mib free_mib memory_mib
	image_mib=$(wanted_mib)
	free_mib=$(df --output=avail -BM "$out" | tail -n 1 | tr -dc 0-9)
	[[ $free_mib -ge $((image_mib * 7)) ]] ||
		die "$out has $free_mib MiB free, $((image_mib * 7)) MiB are needed; name another folder with --out=DIR"
	free_mib=$(df --output=avail -BM . | tail -n 1 | tr -dc 0-9)
	[[ $free_mib -ge 200 ]] || die "$PWD has $free_mib MiB free, 200 MiB are needed to build"
	memory_mib=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
	[[ $memory_mib -ge $((image_mib + 256)) ]] ||
		die "$memory_mib MiB of memory are free, $((image_mib + 256)) MiB are needed"
}

# The folder and the options of tests/run.sh: either command may come first, and neither builds twice. Of all targets
# only those that are needed.
build() {
	local log=build/quickstart.log
	mkdir -p build
	echo "building in build/ ..."
	{
		[[ -f build/CMakeCache.txt ]] || cmake -S . -B build -DCMAKE_BUILD_TYPE=RelWithDebInfo
		cmake --build build -j "$(nproc)" --target uffdwp-bank uffdwp_sqlite
	} >"$log" 2>&1 || {
		tail -n 40 "$log" >&2
		die "the build failed, see $log"
	}
}

folder_made=
# shellcheck disable=SC2317 # the trap calls it
cleanup() {
	if [[ -n $folder_made && $keep -eq 0 ]]; then
		rm -rf -- "$folder_made"
	fi
}

choose_folder() {
	[[ -z $out ]] || return 0
	folder_made=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-quickstart-XXXXXX")
	out=$folder_made
	trap cleanup EXIT
	trap 'exit 130' INT TERM
}

parse "$@"
check_arguments
choose_folder
check_room
if [[ $install -eq 1 ]]; then
	./tools/install-deps.sh build test
fi
build
[[ -z $database ]] || bank_options+=("--load=$database")
status=0
build/bin/uffdwp-bank "--out=$out" "${bank_options[@]}" || status=$?
[[ $keep -eq 0 ]] || echo "images: $out" >&2
exit "$status"
