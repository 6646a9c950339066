#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The main job in one command: installs what is missing, builds, and saves a database in memory five times while writers
# go on; each image is verified by the stock sqlite3 program. Or a smaller job by each mechanism of this machine.
set -euo pipefail
cd_from=$PWD
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8

usage() {
	cat <<'END'
usage: tools/quickstart.sh [OPTION]... [DATABASE]

Takes a copy of DATABASE (a file of SQLite's; it is not changed, and others may write to it), or generates a bank of
256 MiB, and saves it under load by snapshots, by SQLite's online backup and by VACUUM INTO. Ends with "verified: 5/5"
and exit code 0.

  --size=BYTES           of the generated database (256M; 64M for each of --mechanism=all)
  --delivery=NAME        what resolves a write fault: auto, thread or inline
  --mechanism=NAME       how writes are caught: auto, marker, rearm, minor or mprotect; or all: one after the other,
                         a line for each, three snapshots, those that this machine does not offer with the reason
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
size=
json=0
mechanism=auto
delivery=auto
bank_options=()
mechanisms=(marker rearm minor mprotect)

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
		--size=*) size=${argument#*=} ;;
		--mechanism=*) mechanism=${argument#*=} ;;
		--delivery=*) delivery=${argument#*=} ;;
		--json) json=1 ;;
		--threads=* | --snapshots=* | --seconds=* | --think=* | --prepare=* | --seed=*)
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
	[[ " auto all ${mechanisms[*]} " == *" $mechanism "* ]] ||
		die "--mechanism=$mechanism: none of auto, all, ${mechanisms[*]}"
	[[ " auto thread inline " == *" $delivery "* ]] || die "--delivery=$delivery: none of auto, thread, inline"
	if [[ -z $size ]]; then
		size=256M
		[[ $mechanism != all ]] || size=64M
	fi
	[[ $size =~ ^[0-9]+[KkMmGg]?$ ]] || die "--size=$size: not a number of bytes with K, M or G after it"
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

# Five images, and at a time one of a rival's with what it needs beside; with all mechanisms three of each.
check_room() {
	local image_mib free_mib memory_mib images=7
	[[ $mechanism != all ]] || images=14
	image_mib=$(wanted_mib)
	free_mib=$(df --output=avail -BM "$out" | tail -n 1 | tr -dc 0-9)
	[[ $free_mib -ge $((image_mib * images)) ]] ||
		die "$out has $free_mib MiB free, $((image_mib * images)) MiB are needed; name another folder with --out=DIR"
	free_mib=$(df --output=avail -BM . | tail -n 1 | tr -dc 0-9)
	[[ $free_mib -ge 200 ]] || die "$PWD has $free_mib MiB free, 200 MiB are needed to build"
	memory_mib=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
	[[ $memory_mib -ge $((image_mib + 256)) ]] ||
		die "$memory_mib MiB of memory are free, $((image_mib + 256)) MiB are needed"
}

# CMake is used where all is there that a build of everything needs; the compiler alone does it elsewhere.
can_configure() {
	command -v cmake >/dev/null && [[ -z $(./tools/install-deps.sh --list build test) ]]
}

# The folder and the options of tests/run.sh: either command may come first, and neither builds twice. From all targets
# only those that are needed.
build() {
	local log=build/quickstart.log
	mkdir -p build
	echo "building in build/ ..." >&2
	{
		if can_configure; then
			[[ -f build/CMakeCache.txt ]] || cmake -S . -B build -DCMAKE_BUILD_TYPE=RelWithDebInfo
			cmake --build build -j "$(nproc)" --target uffdwp-bank uffdwp_sqlite uffdwp-ctl
		else
			./tools/plain-build.sh build
		fi
	} >"$log" 2>&1 || {
		tail -n 40 "$log" >&2
		die "the build failed, see $log"
	}
}

folder_made=
notes=
# shellcheck disable=SC2317 # the trap calls it
cleanup() {
	[[ -z $notes ]] || rm -rf -- "$notes"
	if [[ -n $folder_made && $keep -eq 0 ]]; then
		rm -rf -- "$folder_made"
	fi
}

choose_folders() {
	trap cleanup EXIT
	trap 'exit 130' INT TERM
	notes=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-notes-XXXXXX")
	if [[ -z $out ]]; then
		folder_made=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-quickstart-XXXXXX")
		out=$folder_made
	fi
}

# Statements about the documents in the folder of notes.
ask() {
	(cd "$notes" && sqlite3 -batch -init /dev/null :memory:)
}

# Why this machine does not offer a mechanism with the delivery that was asked for; nothing: it does.
refusal_of() {
	ask <<END
WITH rung(it) AS (SELECT json_extract(CAST(readfile('doctor.json') AS TEXT), '\$.memory.shmem.ladder.$1'))
SELECT CASE
	WHEN it IS NULL THEN 'uffdwp-ctl doctor does not list it'
	WHEN NOT json_extract(it, '\$.works') THEN json_extract(it, '\$.reason')
	WHEN '$delivery' <> 'auto' AND NOT json_extract(it, '\$.${delivery}_works')
	THEN 'it cannot be delivered by $delivery'
	ELSE '' END
FROM rung;
END
}

run_bank() {
	local options=("--size=$size" "--mechanism=$1" "--delivery=$delivery" "--out=$2" "${@:3}")
	[[ -z $database ]] || options+=("--load=$database")
	build/bin/uffdwp-bank "${options[@]}" "${bank_options[@]}"
}

run_one() {
	local reason options=()
	if [[ $mechanism != auto ]]; then
		reason=$(refusal_of "$mechanism")
		[[ -z $reason ]] || die "mechanism $mechanism is not available here: $reason"
	fi
	[[ $json -eq 0 ]] || options=(--json)
	run_bank "$mechanism" "$out" "${options[@]}"
}

# The document of one run as a line.
print_line() {
	ask <<'END'
WITH document(it) AS (SELECT CAST(readfile('result.json') AS TEXT))
SELECT printf('%-10s delivery %-6s  verified %d/%d  pause %8.3f ms  begin %8.3f ms  longest stall %8.3f ms  (no save %8.3f ms)',
	json_extract(it, '$.mechanism'), json_extract(it, '$.delivery'), json_extract(it, '$.verified'),
	json_extract(it, '$.snapshots'), json_extract(it, '$.rows[1].pause_ns') / 1e6,
	json_extract(it, '$.rows[1].begin_ns') / 1e6,
	json_extract(it, '$.rows[1].max_ns') / 1e6, json_extract(it, '$.rows[0].max_ns') / 1e6)
FROM document;
END
}

# The snapshots of one mechanism: 0 where all were verified.
run_mechanism() {
	local folder=$out/$1
	mkdir -p "$folder"
	if ! run_bank "$1" "$folder" --json --snapshots=3 --seconds=1 >"$notes/result.json" 2>"$notes/result.log"; then
		cat "$notes/result.log" >&2
		printf '%-10s FAILED\n' "$1"
		return 1
	fi
	if [[ $json -eq 1 ]]; then
		cat "$notes/result.json"
	else
		print_line
	fi
	[[ -z $folder_made || $keep -eq 1 ]] || rm -rf -- "$folder"
}

run_each() {
	local each reason verified=0 offered=0
	for each in "${mechanisms[@]}"; do
		reason=$(refusal_of "$each")
		if [[ -n $reason ]]; then
			printf '%-10s not offered here: %s\n' "$each" "$reason" >&"$((1 + json))"
			continue
		fi
		offered=$((offered + 1))
		run_mechanism "$each" && verified=$((verified + 1))
	done
	echo "mechanisms verified: $verified/$offered" >&"$((1 + json))"
	[[ $offered -gt 0 && $verified -eq $offered ]]
}

parse "$@"
check_arguments
choose_folders
check_room
if [[ $install -eq 1 ]]; then
	./tools/install-deps.sh quickstart >&2
fi
build
# It exits with more than 0 where something is amiss; what it says is all the same.
build/bin/uffdwp-ctl doctor --json >"$notes/doctor.json" || true
status=0
if [[ $mechanism == all ]]; then
	run_each || status=$?
else
	run_one || status=$?
fi
[[ $keep -eq 0 ]] || echo "images: $out" >&2
exit "$status"
