#!/bin/bash
# SPDX-License-Identifier: MIT
# Redis by uffdwp-ctl fork: saves under load are images of one instant, also from a daemon. (What other programs do with it
# shows kernel/test_fork_preload.c.)
set -euo pipefail
skip() {
	echo "skipped: $*"
	exit 77
}
command -v redis-server redis-cli redis-benchmark redis-check-rdb >/dev/null || skip "redis-server is not installed"
"$UFFDWP_CTL" fork --check -- redis-server >/dev/null || skip "uffdwp-ctl fork --check says that it is not possible here"

folder=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-fork.XXXXXX")
cli() { redis-cli -s "$folder/socket" "$@"; }
trap 'cli shutdown nosave >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
fail() {
	echo "failed: $*"
	tail -n 20 "$folder/log" "$folder/err"
	exit 1
}

# usage: await COMMAND... until it succeeds
await() {
	local tries=600
	until "$@" >/dev/null 2>&1; do
		((tries--)) || fail "waited in vain: $*"
		sleep 0.1
	done
}

info_has() { cli info persistence | tr -d '\r' | grep -x "$1" >/dev/null; }

start() {
	"$UFFDWP_CTL" fork --verbose -- redis-server --port 0 --unixsocket "$folder/socket" --dir "$folder" --save '' \
		--logfile "$folder/log" --enable-debug-command yes "$@" 2>"$folder/err" &
	await info_has loading:0
	cli debug populate 100000 key 500 >/dev/null
}

# Keys that are written in pairs, in one command, are equal in the image.
save_under_load() {
	redis-benchmark -s "$folder/socket" -n 20000 -r 100000 -q eval \
		"redis.call('set', 'a:' .. ARGV[1], ARGV[2]); redis.call('set', 'b:' .. ARGV[1], ARGV[2]) return 1" \
		0 __rand_int__ __rand_int__ >/dev/null &
	local load=$!
	sleep 0.2
	cli bgsave | grep started >/dev/null || fail "no save was started"
	await info_has rdb_bgsave_in_progress:0
	wait "$load"
	info_has rdb_last_bgsave_status:ok || fail "the save failed"
	redis-check-rdb "$folder/dump.rdb" >"$folder/checked" || fail "the image is damaged: $(cat "$folder/checked")"
}

start
for _ in 1 2 3; do
	save_under_load
done
grep -q 'has child' "$folder/err" || fail "no fork was the library's"
grep -q 'runs without it\|forks by copying' "$folder/err" && fail "not all forks were the library's"
cli shutdown nosave || true
wait

start --daemonize yes --pidfile "$folder/pid"
odd=$(cli eval "local odd = 0
	for _, key in ipairs(redis.call('keys', 'a:*')) do
		if redis.call('get', key) ~= redis.call('get', 'b:' .. key:sub(3)) then odd = odd + 1 end
	end
	return odd" 0)
[[ $odd == 0 ]] || fail "$odd pairs of keys are not equal in the image"
save_under_load
grep -q uffdwp-fork "/proc/$(cat "$folder/pid")/maps" || fail "the daemon has no region"
echo "saves under load are right"
