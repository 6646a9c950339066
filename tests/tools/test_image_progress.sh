#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# uffdwp-ctl image says how far it is: nothing in a pipe, lines by --progress=plain, a bar on a terminal that is taken away;
# and a signal in the middle leaves neither a result nor the file that was to become it. The bar itself, and the terminal,
# are the matter of test_progress.c.
set -euo pipefail

: "${UFFDWP_CTL:?run by ctest}"
if [[ ! -x $UFFDWP_CTL ]]; then
	echo "skipped: uffdwp-ctl was not built (UFFDWP_TOOLS?)"
	exit 77
fi
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-image-progress.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

image() {
	"$UFFDWP_CTL" image "$@"
}

head -c 24M /dev/urandom >before
cp before after
printf x | dd of=after bs=1 seek=5000000 conv=notrunc status=none
image diff before after -o change >/dev/null

# All but what is asked for: standard output is as ever, standard error empty.
for words in "verify change" "diff before after" "restore change -o raw" "merge -d 1 change -o merged"; do
	for progress in "" --progress=auto --progress=never; do
		# shellcheck disable=SC2086 # words
		image $words $progress >out 2>err || [[ $words == diff* ]] || fail "image $words $progress: $(cat err)"
		[[ ! -s err ]] || fail "image $words $progress says something in a pipe: $(cat err)"
	done
	# shellcheck disable=SC2086
	image $words --progress=plain >plain.out 2>err || [[ $words == diff* ]] || fail "image $words: $(cat err)"
	cmp out plain.out
	name=${words%% *}
	grep -qvE "^$name: [0-9]+ % [0-9.]+ ([KM]i)?B of [0-9.]+ ([KM]i)?B\$" err && fail "image $words: a line is not as it should be: $(cat err)"
	tail -n 1 err | grep -q "^$name: 100 % " || fail "image $words --progress=plain does not end with all: $(cat err)"
done
# The second witness: what is read are all bytes of both files.
total=$(($(stat -c %s before) + $(stat -c %s change)))
image verify --progress=plain change 2>err >/dev/null
grep -q "^verify: 100 % $(awk -v bytes=$total 'BEGIN { printf "%.1f MiB", bytes / 1048576 }') of " err || fail "not $total bytes: $(cat err)"

status=0
image verify --progress=sometimes change >out 2>&1 || status=$?
[[ $status -eq 2 ]] || fail "a word that is none: $status"
grep -q "takes auto, never, plain or bar, not 'sometimes'" out || fail "a word that is none: $(cat out)"
status=0
image info --progress=bar change >out 2>&1 || status=$?
[[ $status -eq 2 ]] || fail "info takes it: $status"
grep -q 'is for verify, merge, restore and diff' out || fail "info takes it: $(cat out)"

# A damaged image: the bar is gone before the complaint.
printf x | dd of=change bs=1 seek=5000 conv=notrunc status=none
image verify --progress=bar change >out 2>err && fail "damage was not found"
tr '\r' '\n' <err | tail -n 1 | grep -q '^uffdwp-ctl image: "change" is damaged' || fail "the bar stays: $(cat -v err)"
rm change
image diff before after -o change >/dev/null

if command -v script >/dev/null && script -qec true /dev/null </dev/null >/dev/null 2>&1; then
	TERM=xterm script -qec "'$UFFDWP_CTL' image verify --progress=bar change 2>&1 >out" /dev/null </dev/null >terminal
	grep -q 'verify:' terminal || fail "no bar on a terminal"
	[[ $(tail -c 4 terminal) == $'\r\033[K' ]] || fail "the bar stays on the terminal: $(cat -v terminal)"
	grep -q 'whole: 2 of 2' out || fail "the result is not there"
else
	echo "not tested here: a terminal: there is no script(1), or it gets none"
fi

# As soon as the file is there that becomes the result, or after the end if it was that fast.
interrupted=0
head -c 100M /dev/urandom >large
for signal in INT TERM HUP QUIT INT TERM; do
	rm -f raw
	status=0
	# A shell without jobs has its background processes ignore SIGINT.
	env --default-signal=INT,QUIT "$UFFDWP_CTL" image restore --buffered large -o raw 2>err &
	pid=$!
	until compgen -G '.uffdwp-*' >/dev/null || ! kill -0 "$pid" 2>/dev/null; do :; done
	kill -s "$signal" "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || status=$?
	! compgen -G '.uffdwp-*' || fail "SIG$signal left a file"
	if [[ $status -ne 0 ]]; then
		[[ $status -eq $((128 + $(kill -l "$signal"))) ]] || fail "SIG$signal: it ended with $status"
		[[ ! -s err ]] || fail "SIG$signal: it complains: $(cat err)"
		interrupted=$((interrupted + 1))
	fi
	[[ ! -e raw ]] || cmp raw large
done
echo "image: the progress is as it should be, $interrupted of 6 signals came in the middle"
