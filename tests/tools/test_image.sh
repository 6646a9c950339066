#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# uffdwp-ctl image, with cmp(1) as the witness: chains made by diff, restored, merged, verified; exit codes, messages
# and JSON; damage; a full disk, which leaves nothing; and kill -9 at random moments, after which whatever stands under
# a final name is whole. The seed is printed, and taken from UFFDWP_SEED.
set -euo pipefail

: "${UFFDWP_CTL:?run by ctest}"
if [[ ! -x $UFFDWP_CTL ]]; then
	echo "skipped: uffdwp-ctl was not built (UFFDWP_TOOLS?)"
	exit 77
fi

seed=${UFFDWP_SEED:-$(date +%s)}
echo "image: UFFDWP_SEED=$seed"
RANDOM=$((seed % 32768))

scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-image.XXXXXX")
mounted=
started=
cleanup() {
	[[ -z $started ]] || kill -KILL "$started" 2>/dev/null || true
	[[ -z $mounted ]] || umount "$mounted"
	rm -rf "$scratch"
}
trap cleanup EXIT
cd "$scratch"

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

image() {
	"$UFFDWP_CTL" image "$@"
}

# expect CODE PATTERN COMMAND...: ends so, and says so (on either stream).
expect() {
	local code=$1 pattern=$2 status=0
	shift 2
	"$UFFDWP_CTL" image "$@" >said 2>&1 || status=$?
	[[ $status -eq $code ]] || fail "image $* ended with $status, expected $code: $(cat said)"
	grep -qE -- "$pattern" said || fail "image $* does not say '$pattern': $(cat said)"
}

# Noise and holes into a file, at random places: so many writes of up to 64 KiB.
scribble() { # file, writes, length
	local i
	for ((i = 0; i < $2; i++)); do
		dd if=/dev/urandom of="$1" bs=4096 count=$((1 + RANDOM % 16)) seek=$(((RANDOM * 32768 + RANDOM) % ($3 / 4096))) \
			conv=notrunc status=none
	done
}

make_chain() { # megabytes, deltas, writes
	local length=$(($1 << 20)) i
	truncate -s "$length" state-0
	scribble state-0 "$3" "$length"
	truncate -s "$length" state-0
	cp --sparse=always state-0 base
	local newest=base
	for ((i = 1; i <= $2; i++)); do
		cp --sparse=always "state-$((i - 1))" "state-$i"
		scribble "state-$i" "$3" "$length"
		truncate -s "$length" "state-$i"
		image diff "$newest" "state-$i" -o "delta-$i" >/dev/null
		newest=delta-$i
	done
}

damage() { # file, offset: one byte
	local byte
	byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
	printf '%b' "\\x$(printf %x $((byte ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

test_restore_and_merge() {
	local i
	for ((i = 1; i <= 4; i++)); do
		image restore "delta-$i" -o restored
		cmp restored "state-$i"
		image verify "delta-$i" >/dev/null
	done
	[[ $(du -k restored | cut -f1) -le $(($(du -k state-4 | cut -f1) + 256)) ]] || fail "restore fills holes"
	image merge -d 3 -z 3 delta-4 -o merged
	image restore merged -o restored
	cmp restored state-4
	image merge --buffered merged -o restored
	cmp restored state-4
	rm merged restored
}

test_diff() {
	expect 0 '^0 ranges differ' diff delta-4 state-4
	expect 1 '^\[[0-9]+, [0-9]+\)$' diff delta-3 delta-4
	expect 1 '"differ":true' diff --json base delta-1
	expect 0 '' diff -z 1 delta-1 delta-4 -o leap
	image restore leap -o restored
	cmp restored state-4
	rm leap restored
}

test_diff_of_lengths() {
	cp state-4 longer
	truncate -s +1M longer
	expect 1 '^0 ranges differ' diff state-4 longer
	grep -qx "the lengths differ: $(stat -c %s state-4) and $(stat -c %s longer) bytes" said || fail "no lengths: $(<said)"
	expect 1 '"differ":true' diff --json longer delta-4
	grep -q "\"from_length_bytes\":$(stat -c %s longer),$" said || fail "no length of FROM: $(<said)"
	grep -q "\"to_length_bytes\":$(stat -c %s state-4),$" said || fail "no length of TO: $(<said)"
	expect 0 '"differ":false' diff --json state-4 delta-4
	expect 0 '^the lengths differ' diff delta-4 longer -o leap
	image restore leap -o restored
	cmp restored longer
	rm leap restored longer
}

test_reports() {
	expect 0 'parent "delta-3"' info delta-4
	expect 0 '"kind":"raw"' info --json delta-4
	expect 0 'whole: 5 of 5 files' verify delta-4
	expect 0 '"whole":true' verify --json delta-4
}

test_refusals() {
	expect 2 'subcommand is missing'
	expect 2 "'frobnicate' is no subcommand: info, verify" frobnicate base
	expect 2 "'--json' stands where the subcommand does" --json verify base
	expect 2 'IMAGE is missing: it takes one image, uffdwp-ctl image restore IMAGE -o FILE' restore -o x
	expect 2 'TO is missing: it takes two images, uffdwp-ctl image diff FROM TO' diff base
	expect 2 "'more' is one image too many: it compares two" diff base delta-1 more another
	for command in info verify merge restore; do
		expect 2 "'base' is one image too many: it takes one image, the newest of a chain" $command delta-1 base more
		grep -q "Try .uffdwp-ctl image --help" said || fail "$command: no hint: $(<said)"
	done
	expect 2 "--output takes the name of a file, not ''" restore delta-1 -o ''
	expect 2 'result goes is missing' restore delta-1
	expect 2 'only deltas are compressed' merge -z 3 delta-1 -o x
	expect 2 'number from 1 to 19' merge -d 1 -z 20 delta-1 -o x
	expect 2 '--json is for' restore --json delta-1 -o x
	expect 4 'cannot be opened' info nothing
	expect 4 'the chain has 4' merge -d 5 delta-4 -o x
	expect 4 'belongs to the chain' restore delta-4 -o base
	[[ ! -e x ]] || fail "a refusal left a file"
	expect 0 'Exit codes' --help
}

test_damage() {
	cp delta-2 kept
	damage delta-2 5000
	expect 4 '"delta-2" is damaged at byte' verify delta-4
	expect 4 '"whole":false' verify --json delta-4
	damage delta-2 4088
	expect 4 '"delta-2" is damaged at byte 4088 \(the header' info delta-4
	mv kept elsewhere
	rm delta-2
	expect 4 'the parent of "delta-3" is missing' info delta-4
	expect 0 '' verify -a elsewhere delta-4
	cp delta-1 delta-2
	expect 4 'is not the parent of "delta-3"' info delta-4
	mv elsewhere delta-2
	cp base kept
	damage base 70000
	expect 4 '"base" is not the parent of "delta-1"' verify delta-4
	expect 4 '"base" is not the parent of "delta-1"' restore delta-4 -o x
	[[ ! -e x ]] || fail "a refused restore left a file"
	mv kept base
	image verify delta-4 >/dev/null
}

test_full_disk() {
	mkdir full
	if ! mount -t tmpfs -o size=1m tmpfs full 2>mount.err; then
		echo "not tested here: a full disk: $(cat mount.err)"
		return
	fi
	mounted=$scratch/full
	expect 4 'No space left' restore delta-4 -o full/x
	expect 4 'No space left' merge -d 4 delta-4 -o full/x
	expect 4 'No space left' diff base delta-4 -o full/x
	[[ -z $(ls -A full) ]] || fail "a full disk is left with $(ls -A full)"
	umount full
	mounted=
}

# Is killed at an unknown moment: the name has nothing, or all of it.
kill_at_random() { # how to judge the result, command...
	local judge=$1 i there=0
	shift
	for ((i = 0; i < 25; i++)); do
		rm -f result
		"$UFFDWP_CTL" image "$@" -o result >/dev/null 2>&1 &
		started=$!
		sleep "0.0$((RANDOM % 10))$((RANDOM % 10))"
		kill -KILL "$started" 2>/dev/null || true
		wait "$started" 2>/dev/null || true
		started=
		rm -f .uffdwp-*.tmp
		[[ -e result ]] || continue
		there=$((there + 1))
		"$judge" || fail "$*: what a killed process left is not whole"
	done
	echo "image $1: killed 25 times, $there times there and whole"
}

judge_restored() {
	cmp result state-4
}

judge_merged() {
	image verify result >/dev/null
}

make_chain 8 4 40
test_restore_and_merge
test_diff
test_diff_of_lengths
test_reports
test_refusals
test_damage
test_full_disk
rm -f base state-* delta-*
make_chain 48 4 100
kill_at_random judge_restored restore delta-4
kill_at_random judge_merged merge -d 3 -z 1 delta-4
kill_at_random judge_merged diff base delta-4
echo "image: all is as cmp says"
