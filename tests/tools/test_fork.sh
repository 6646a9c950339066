#!/bin/bash
# SPDX-License-Identifier: MIT
# Redis by uffdwp-ctl fork: each save, each rewrite of the append-only file and each copy for a replica that is made
# under load holds one instant. Clients change pairs of keys in transactions, whose sums and counts agree at any instant;
# the second witness is a plain server, which loads what was made. (What other programs do shows
# kernel/test_fork_preload.c.)
# UFFDWP_SAVES, UFFDWP_REWRITES, UFFDWP_REPLICAS: how many of each.
set -euo pipefail
skip() {
	echo "skipped: $*"
	exit 77
}
command -v redis-cli redis-check-rdb >/dev/null || skip "redis-cli and redis-check-rdb are not installed"
# Debian's redis-tools has the server by another name: it looks at the name that it is called by.
server=$(command -v redis-server || command -v redis-check-rdb)
"$UFFDWP_CTL" fork --check -- "$server" >/dev/null || skip "uffdwp-ctl fork --check says that it is not possible here"

saves=${UFFDWP_SAVES:-3} rewrites=${UFFDWP_REWRITES:-1} replicas=${UFFDWP_REPLICAS:-2}
pairs=20000
seed=${UFFDWP_SEED:-$RANDOM}
port=$((20000 + RANDOM % 20000))
while (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
	((++port))
done
folder=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-fork.XXXXXX")
mkdir "$folder/plain"
ln -s "$(realpath "$server")" "$folder/redis-server"
echo "UFFDWP_SEED=$seed"

loaders=()
cli() { redis-cli -s "$folder/socket" "$@"; }
plain() { redis-cli -s "$folder/plain/socket" "$@"; }
# Processes of this script alone; those that have ended are no failure.
leave() {
	kill -9 "${loaders[@]}" 2>/dev/null || true
	cli shutdown nosave >/dev/null 2>&1 || true
	plain shutdown nosave >/dev/null 2>&1 || true
	rm -rf "$folder"
}
trap leave EXIT
fail() {
	echo "failed: $*"
	tail -n 20 "$folder/log" "$folder/err" || true
	exit 1
}

# usage: await COMMAND... until it succeeds
await() {
	local tries=1200
	until "$@" >/dev/null 2>&1; do
		((tries--)) || fail "waited in vain: $*"
		sleep 0.05
	done
}

info_has() { cli info | tr -d '\r' | grep -x "$1" >/dev/null; }
plain_has() { plain info | tr -d '\r' | grep -x "$1" >/dev/null; }

start() {
	"$UFFDWP_CTL" fork --verbose -- "$folder/redis-server" --port "$port" --bind 127.0.0.1 --unixsocket "$folder/socket" \
		--dir "$folder" --save '' --logfile "$folder/log" --enable-debug-command yes --repl-diskless-sync-delay 0 \
		"$@" 2>"$folder/err" &
	await info_has loading:0
}

# usage: start_plain [OPTION]... A server without us, in a folder of its own.
start_plain() {
	"$folder/redis-server" --port 0 --unixsocket "$folder/plain/socket" --dir "$folder/plain" --save '' \
		--logfile "$folder/plain/log" --enable-debug-command yes "$@" &
	plain_process=$!
	await plain_has loading:0
}

stop_plain() {
	plain shutdown nosave >/dev/null 2>&1 || true
	wait "$plain_process" || true
	rm -rf "$folder/plain"
	mkdir "$folder/plain"
}

# ---- load ----

# usage: transactions NUMBER: commands without end. Besides the pairs values come and go whose sizes make an allocator
# map, give back and move memory.
transactions() {
	awk -v pairs="$pairs" -v number="$1" -v seed="$((seed + $1))" 'BEGIN {
		srand(seed)
		while (length(long) < 60000) long = long "0123456789abcdefghijklmnopqrstuvwxyz"
		for (;;) {
			pair = int(rand() * pairs); add = int(rand() * 1000)
			print "MULTI\nINCRBY a:" pair " " add "\nINCR count:" number "\nDECRBY b:" pair " " add "\nINCR count\nEXEC"
			if (rand() < 0.05) print "SET long:" int(rand() * 500) " " substr(long, 1, int(rand() * length(long)))
			if (rand() < 0.03) print "DEL long:" int(rand() * 500)
		}
	}' 2>/dev/null
}

load_begin() {
	local number
	for number in 1 2; do
		transactions "$number" | redis-cli -s "$folder/socket" >/dev/null 2>&1 &
		loaders+=($!) # of the client; without it the other is ended by its pipe
	done
}

# ---- the second witness ----

# How many sums and counts of a server's do not agree, and how many transactions it has seen.
# usage: odd_of CLIENT
odd_of() {
	"$1" eval "local odd = 0
		local function number(key) return tonumber(redis.call('get', key) or 0) end
		for pair = 0, $pairs - 1 do
			if number('a:' .. pair) + number('b:' .. pair) ~= 0 then odd = odd + 1 end
		end
		if number('count') ~= number('count:1') + number('count:2') then odd = odd + 1 end
		if redis.call('dbsize') < 100000 then odd = odd + 1 end
		return odd .. ' of ' .. (number('count') > 0 and 'many' or 'none')" 0
}

# usage: expect_right CLIENT WHAT
expect_right() {
	local odd
	odd=$(odd_of "$1") || fail "$2: not known"
	[[ $odd == "0 of many" ]] || fail "$2: sums or counts do not agree: $odd"
}

# usage: check_image FILE WHAT
check_image() {
	redis-check-rdb "$1" >"$folder/checked" || fail "$2 is damaged: $(cat "$folder/checked")"
	cp "$1" "$folder/plain/dump.rdb"
	start_plain
	expect_right plain "$2"
	stop_plain
}

# ---- what forks ----

save() {
	cli bgsave | grep started >/dev/null || fail "no save was started"
	await info_has rdb_bgsave_in_progress:0
	info_has rdb_last_bgsave_status:ok || fail "save $1 failed"
	check_image "$folder/dump.rdb" "save $1"
}

rewrite() {
	cli bgrewriteaof | grep started >/dev/null || fail "no rewrite was started"
	await info_has aof_rewrite_in_progress:0
	info_has aof_last_bgrewrite_status:ok || fail "rewrite $1 failed"
	check_image "$(echo "$folder"/appendonlydir/*.base.rdb)" "rewrite $1"
}

# Every second one gets its copy by the socket, from the child itself.
replicate() {
	cli config set repl-diskless-sync "$([[ $(($1 % 2)) == 0 ]] && echo yes || echo no)" >/dev/null
	start_plain --replicaof 127.0.0.1 "$port"
	await plain_has master_link_status:up
	expect_right plain "replica $1"
	stop_plain
}

# The last replica ends up with all that the server has.
replicate_last() {
	start_plain --replicaof 127.0.0.1 "$port"
	await plain_has master_link_status:up
	kill -9 "${loaders[@]}" 2>/dev/null || true
	wait "${loaders[@]}" 2>/dev/null || true
	loaders=()
	await info_has connected_clients:1
	await same_digest
	expect_right cli "the server itself"
	stop_plain
}

same_digest() { [[ $(cli debug digest) == "$(plain debug digest)" ]]; }

# usage: times COUNT FUNCTION
times() {
	local turn
	for ((turn = 1; turn <= $1; turn++)); do
		"$2" "$turn"
	done
	echo "$2: $1 are right"
}

start
cli debug populate 100000 key 500 >/dev/null
load_begin
await info_has 'total_commands_processed:[0-9][0-9][0-9][0-9][0-9]*'
times "$saves" save
cli config set appendonly yes >/dev/null
await info_has aof_rewrite_in_progress:0
await info_has aof_rewrite_scheduled:0
times "$rewrites" rewrite
times "$replicas" replicate
replicate_last

children=$(grep -c 'has child' "$folder/err" || true)
echo "$children children by uffdwp_fork(), $(cli get count) transactions"
[[ $children -ge $((saves + rewrites + (replicas + 1) / 2)) ]] || fail "not all forks were the library's"
grep -q 'runs without it\|forks by copying' "$folder/err" && fail "not all forks were the library's"
cli config set appendonly no >/dev/null
cli shutdown nosave || true
wait

# A daemon leaves the terminal by fork(), before it has data.
start --daemonize yes --pidfile "$folder/pid"
expect_right cli "what was saved last"
load_begin
save daemon
grep -q uffdwp-fork "/proc/$(cat "$folder/pid")/maps" || fail "the daemon has no region"
echo "a daemon's save is right"
