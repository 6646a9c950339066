#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# uffdwp-ctl serve, by stand-ins for monitors of virtual machines (tools/serve/monitor.h): eight at once, restored lazily,
# writing at random, snapshotted with increments, each image compared with what the memory was at the cut; beside them
# hostile clients (tools/serve/hostile.c), which no other client notices. Then ends: of clients, of the server, of a
# client's handler in the middle of a restore. Latencies are printed and judged by no one: machines differ.
# The seed is printed, and taken from UFFDWP_SEED. UFFDWP_TEST_LONG: 256 MiB each and a minute, else 16 MiB and 3 s.
set -eEuo pipefail
trap 'echo "FAILED: line $LINENO: $BASH_COMMAND" >&2' ERR

: "${UFFDWP_CTL:?run by ctest}" "${UFFDWP_BUILD:?}"
monitor=$UFFDWP_BUILD/tests/uffdwp_monitor
hostile=$UFFDWP_BUILD/tests/uffdwp_hostile
skip() {
	echo "skipped: $*"
	exit 77
}
[[ -x $UFFDWP_CTL && -x $monitor ]] || skip "uffdwp-ctl was not built (UFFDWP_TOOLS?)"
"$UFFDWP_CTL" doctor --json | tr -d ' \n' | grep -qE '"shmem":.*"rearm":\{"works":true' ||
	skip "mechanism rearm does not work for shared memory here (uffdwp-ctl doctor)"

seed=${UFFDWP_SEED:-$(date +%s)}
echo "serve: UFFDWP_SEED=$seed"
megabytes=16 half=1.5 # of the time that eight run
[[ -z ${UFFDWP_TEST_LONG:-} ]] || megabytes=256 half=30

scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-serve.XXXXXX")
server=
children=()
mounted=
# Ends processes of this script alone.
cleanup() {
	local pid
	for pid in "$server" "${children[@]}"; do
		[[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null || true
	done
	[[ -z $mounted ]] || fusermount3 -u "$mounted" 2>/dev/null || umount -l "$mounted" 2>/dev/null || true
	rm -rf "$scratch"
}
trap cleanup EXIT
cd "$scratch"
mkdir images snapshots
chmod 700 .

fail() {
	echo "FAILED: $*" >&2
	tail -n 30 log >&2 || true
	exit 1
}

# await COMMAND...: until it succeeds; the limit is against hanging.
await() {
	local tries=6000
	until "$@" >/dev/null 2>&1; do
		((tries--)) || fail "waited in vain: $*"
		sleep 0.05
	done
}

listens() { [[ -S socket ]] && kill -0 "$server" && grep -q "listens at" log; }
has_ended() { ! kill -0 "$1"; }
has_no_handlers() { [[ -z $(ps --no-headers -o pid --ppid "$server") ]]; }
handler_count() { ps --no-headers -o pid --ppid "$server" | wc -l; }
log_has() { grep -qE -- "$1" log; }

start_server() { # OPTION...
	: >log
	"$UFFDWP_CTL" serve --socket socket --snapshots snapshots "$@" 2>>log &
	server=$!
	await listens
}

stop_server() {
	local status=0
	kill -TERM "$server"
	wait "$server" || status=$?
	server=
	[[ $status -eq 0 ]] || fail "the server ended with $status"
	[[ ! -e socket ]] || fail "the server left its socket"
}

start_monitor() { # name, VALUE...
	local name=$1
	shift
	"$monitor" socket=socket name="$name" snapshots=snapshots seed="$seed" "$@" >"$name.out" 2>&1 &
	children+=($!)
	started=$! started_name=$name
}

finish() { # pid, name
	local status=0
	wait "$1" || status=$?
	[[ $status -eq 0 ]] || fail "$2 ended with $status: $(cat "$2.out")"
	cat "$2.out"
}

# ---- the command line ----

expect() { # CODE PATTERN OPTION...
	local code=$1 pattern=$2 status=0
	shift 2
	timeout 100 "$UFFDWP_CTL" serve "$@" >said 2>&1 </dev/null || status=$?
	[[ $status -eq $code ]] || fail "serve $* ended with $status, expected $code: $(cat said)"
	grep -qE -- "$pattern" said || fail "serve $* does not say '$pattern': $(cat said)"
}

test_command_line() {
	expect 2 'missing: --socket'
	expect 2 'takes no argument' --socket s more
	expect 2 '--clients-max takes a number from 1 to 4096' --socket s --clients-max 0
	expect 2 '--memory-max takes a size' --socket s --memory-max 7X
	expect 2 '--memory-max takes a size' --socket s --memory-max 99999999T
	expect 2 'contradicts' --socket s --no-order --order x
	expect 4 'nothing.*(No such file|not there|cannot be opened)' --socket s --image nothing
	expect 4 'No such file' --socket s --images nothing
	expect 4 'it is no folder' --socket s --snapshots images/base.raw
	expect 4 'is no socket' --socket images/base.raw
	expect 4 'No such file' --socket nothing/s
	expect 4 'may have' --socket "$(printf 'x%.0s' {1..200})"
	mkdir open
	chmod 777 open
	expect 4 'other users can write' --socket open/s
	expect 0 'Exit codes' --help
}

test_socket() {
	start_server --image images/base.raw
	[[ $(stat -c %a socket) == 600 ]] || fail "the socket is $(stat -c %a socket)"
	expect 4 'another process listens' --socket socket
	kill -KILL "$server"
	wait "$server" || true
	[[ -S socket ]] || fail "no leftover to replace"
	start_server --image images/base.raw
	stop_server
}

# Huge pages that are free are used by one of the eight.
huge_pages() {
	local page_kb free
	page_kb=$(awk '/^Hugepagesize:/ { print $2 }' /proc/meminfo)
	free=$(awk '/^HugePages_Free:/ { free = $2 } /^HugePages_Rsvd:/ { free -= $2 } END { print free + 0 }' /proc/meminfo)
	[[ $page_kb == 2048 && $free -ge $((megabytes / 2 + 4)) ]]
}

# ---- clients ----

# Where nothing disturbs it.
test_alone() {
	start_server --image images/base.raw
	start_monitor alone image=base.raw raw=images/base.raw rounds=5 interval=100 leave
	finish "$started" alone
	await has_no_handlers
	"$UFFDWP_CTL" image restore snapshots/alone-4.delta -o restored
	cmp restored snapshots/alone.expected || fail "the chain is not the memory at its cut"
	# A chain back into memory.
	start_monitor again image=alone-4.delta raw=snapshots/alone.expected rounds=2 interval=10
	wait "$started" && fail "an image outside of its folder was opened"
	cp --reflink=auto snapshots/alone-* images/
	start_monitor again image=alone-4.delta raw=snapshots/alone.expected rounds=2 interval=10
	finish "$started" again
	stop_server
}

# Firecracker's handshake: private memory, a balloon, of small and of huge pages.
test_firecracker() {
	start_server --image images/base.raw --no-order
	start_monitor firecracker raw=images/base.raw rounds=5 interval=20 firecracker
	finish "$started" firecracker
	if huge_pages; then
		start_monitor huge raw=images/base.raw rounds=5 interval=20 firecracker huge
		finish "$started" huge
	else
		echo "not tested here: huge pages of Firecracker: too few are free"
	fi
	await has_no_handlers
	stop_server
}

# Each hostile client once, one after the other: what is wrong is answered.
test_hostile() {
	start_server --handshake 1
	echo mine >snapshots/taken
	"$hostile" socket taken "$seed" each >hostile.out 2>&1 || fail "a hostile client: $(cat hostile.out)"
	cat hostile.out
	await has_no_handlers
	stop_server
	rm -f snapshots/*
}

test_eight() {
	local pids=() names=() i victim
	start_server --image images/base.raw --images images --handshake 1
	for i in 1 2 3 4 5; do
		start_monitor "vm$i" image=base.raw raw=images/base.raw until="$scratch/enough" interval=200 leave
		pids+=("$started") names+=("vm$i")
	done
	start_monitor counters image=base.raw raw=images/base.raw until="$scratch/enough" interval=200 counters
	pids+=("$started") names+=(counters)
	if huge_pages; then
		start_monitor huge raw=zeros.raw until="$scratch/enough" interval=200 huge
	else
		echo "not tested here: huge pages: too few are free"
		start_monitor vm6 image=base.raw raw=images/base.raw until="$scratch/enough" interval=200
	fi
	pids+=("$started") names+=("$started_name")
	start_monitor firecracker raw=images/base.raw until="$scratch/enough" interval=200 firecracker
	pids+=("$started") names+=("$started_name")
	await test -e snapshots/vm1-1.delta
	sleep "$half"
	kill -USR1 "${pids[@]}"
	echo mine >snapshots/taken
	"$hostile" socket taken "$seed" "$scratch/enough" >hostile.out 2>&1 &
	children+=($!)
	pids+=($!) names+=(hostile)
	start_monitor victim image=base.raw raw=images/base.raw rounds=100000 interval=0
	victim=$started
	await test -e snapshots/victim-1.delta
	kill -KILL "$victim"
	wait "$victim" || true
	sleep "$half"
	touch enough
	for i in "${!pids[@]}"; do
		finish "${pids[i]}" "${names[i]}"
	done
	rm enough
	await has_no_handlers
	[[ $(<snapshots/taken) == mine ]] || fail "a client has replaced a file that is not its own"
	for i in 1 2 3 4 5; do
		"$UFFDWP_CTL" image restore "snapshots/$(sed -nE 's/.*the last is ([^,]*),.*/\1/p' "vm$i.out")" -o restored
		cmp restored "snapshots/vm$i.expected" || fail "the chain of vm$i is not the memory at its cut"
	done
	stop_server
	rm -f snapshots/*
}

# Clients do not notice that the first process is gone, and new ones find the next.
test_server_killed() {
	local first
	start_server --image images/base.raw
	start_monitor before image=base.raw raw=images/base.raw until="$scratch/enough" interval=50
	first=$started
	await test -e snapshots/before-1.delta
	kill -KILL "$server"
	wait "$server" || true
	start_server --image images/base.raw
	start_monitor after image=base.raw raw=images/base.raw rounds=3 interval=50
	finish "$started" after
	touch enough
	finish "$first" before
	rm enough
	stop_server
}

test_limits() {
	start_server --image images/base.raw --clients-max 1 --memory-max 1M
	start_monitor large image=base.raw raw=images/base.raw rounds=1
	wait "$started" && fail "--memory-max allowed too much"
	grep -q EFBIG large.out || fail "--memory-max: $(cat large.out)"
	stop_server
	start_server --image images/base.raw --clients-max 1
	start_monitor one image=base.raw raw=images/base.raw until="$scratch/enough" interval=10
	local one=$started
	await test -e snapshots/one-0.raw
	start_monitor two image=base.raw raw=images/base.raw rounds=1
	wait "$started" && fail "--clients-max allowed too many"
	grep -q EUSERS two.out || fail "--clients-max: $(cat two.out)"
	# One that waits for no answer, and has handed over its memory when the server looks, would wait for ever.
	kill -STOP "$server"
	start_monitor three raw=images/base.raw rounds=1 firecracker
	sleep 0.3
	kill -CONT "$server"
	wait "$started" && fail "--clients-max allowed Firecracker too many"
	log_has 'was killed: its memory waits' || grep -qE 'does not take' three.out ||
		fail "--clients-max of Firecracker: $(cat three.out)"
	touch enough
	finish "$one" one
	rm enough
	stop_server
}

# Processes of clients have control sockets, unless the environment has UFFDWP_CONTROL.
test_control() {
	local handler
	start_server
	start_monitor seen raw=zeros.raw until="$scratch/enough" interval=10
	await test -e snapshots/seen-0.raw
	handler=$(ps --no-headers -o pid --ppid "$server" | tr -d ' ')
	"$UFFDWP_CTL" stat "$handler:1" >said || fail "a client is not seen: $(cat said)"
	"$UFFDWP_CTL" trace --seconds 1 "$handler:1" >said || fail "a client cannot be traced: $(cat said)"
	grep -qE '^[0-9:.]+ +\? +\? .* 1\+0x' said || fail "the writes of a client were not seen: $(cat said)"
	"$UFFDWP_CTL" arm "$handler:1" >said 2>&1 && fail "pages of a client were armed from outside"
	touch enough
	finish "$started" seen
	rm enough
	stop_server
	UFFDWP_CONTROL=0 start_server
	start_monitor unseen raw=zeros.raw until="$scratch/enough" interval=10
	await test -e snapshots/unseen-0.raw
	handler=$(ps --no-headers -o pid --ppid "$server" | tr -d ' ')
	"$UFFDWP_CTL" stat "$handler:1" >said 2>&1 && fail "UFFDWP_CONTROL=0 was not followed"
	grep -q 'no control socket' said || fail "UFFDWP_CONTROL=0: $(cat said)"
	touch enough
	finish "$started" unseen
	rm enough
	stop_server
}

# ---- a slow disk ----

mount_slow() { # milliseconds a read
	command -v nbdkit nbdfuse >/dev/null && [[ -e /dev/fuse ]] || return 1
	mkdir -p slow
	nbdfuse slow/small.raw --command nbdkit -s --exit-with-parent --filter=delay --filter=error file images/small.raw \
		"delay-read=${1}ms" error=EIO error-pread-rate=100% "error-file=$scratch/broken" \
		>nbdfuse.out 2>&1 &
	children+=($!)
	mounted=$scratch/slow
	local tries=200
	until [[ -s slow/small.raw ]]; do
		((tries--)) && kill -0 "${children[-1]}" 2>/dev/null || return 1
		sleep 0.05
	done
}

unmount_slow() {
	fusermount3 -u slow 2>/dev/null || umount slow
	mounted=
}

# The guest of a handler that dies before all is there would see zeros: its process is ended.
test_handler_killed() {
	local pid status=0
	start_server --image slow/small.raw --threads 1 --no-order
	start_monitor lost image=small.raw raw=images/small.raw rounds=100000 interval=10
	pid=$started
	await log_has 'lost, process .* restored from'
	kill -SEGV "$(ps --no-headers -o pid --ppid "$server" | tr -d ' ')"
	wait "$pid" || status=$?
	# Killed, or its connection has ended just before: never has it read what is not the image's.
	[[ $status -eq 137 ]] || grep -qE 'no answer|does not take' lost.out ||
		fail "the client of a handler that was killed ended with $status: $(cat lost.out)"
	await log_has 'was killed: content'
	stop_server
}

# Nor are there zeros where the restore has failed before its handler dies.
test_handler_killed_later() {
	local pid
	start_server --image slow/small.raw --threads 1 --no-order
	start_monitor broken image=small.raw raw=images/small.raw rounds=100000 interval=10
	pid=$started
	await log_has 'broken, process .* restored from'
	kill -STOP "$pid"
	touch broken
	await log_has 'broken, process .*: the restore failed'
	kill -SEGV "$(ps --no-headers -o pid --ppid "$server" | tr -d ' ')"
	await log_has 'was killed: content'
	rm broken
	wait "$pid" && fail "the client of a handler that was killed after its restore had failed lives on"
	stop_server
}

has_place() {
	start_monitor next raw=images/small.raw image=small.raw rounds=1 interval=1
	wait "$started"
}

# With --spare it is not: its threads sleep, and its place is free when it has ended.
test_handler_killed_spared() {
	local status=0
	start_server --image slow/small.raw --images images --threads 1 --no-order --spare --clients-max 1
	start_monitor spared raw=images/small.raw rounds=100000 interval=10 firecracker
	local pid=$started
	await log_has 'process .* restored from'
	kill -SEGV "$(ps --no-headers -o pid --ppid "$server" | tr -d ' ')"
	await log_has 'its threads sleep where its memory is missing'
	log_has 'was killed' && fail "a client was killed, --spare notwithstanding"
	kill -0 "$pid" || fail "the client has ended: $(cat spared.out)"
	has_place && fail "a place is free while the client's memory is kept"
	kill -KILL "$pid"
	wait "$pid" || status=$?
	[[ $status -eq 137 ]] || fail "the client ended before: $status"
	await has_place
	stop_server
}

# What is not there yet is fetched before the server ends.
test_stop_in_restore() {
	start_server --image slow/small.raw --threads 16 --stop 3600 --no-order
	start_monitor late image=small.raw raw=images/small.raw rounds=100000 interval=100
	local pid=$started
	await log_has 'late, process .* restored from'
	stop_server
	log_has 'late, process .*: restored in' || fail "the restore was not ended"
	wait "$pid" && fail "the connection should have ended"
	grep -qE 'no answer|does not take' late.out || fail "the client: $(cat late.out)"
}

# A terminal signals the whole group, and the first process passes the signal on: that is one request.
test_stop_of_group() {
	: >log
	setsid "$UFFDWP_CTL" serve --socket socket --snapshots snapshots --image slow/small.raw --threads 16 --stop 3600 \
		--no-order 2>>log &
	server=$!
	await listens
	start_monitor group image=small.raw raw=images/small.raw rounds=100000 interval=100
	await log_has 'group, process .* restored from'
	kill -INT -- -"$server"
	local pid=$server
	server=
	wait "$pid" || fail "the server ended with $?"
	log_has 'group, process .*: restored in' || fail "the restore was not ended at a signal to the group"
	wait "$started" && fail "the connection should have ended"
	return 0
}

# What was used first is recorded, and followed: in order, checked, and never content.
test_order() {
	start_server --image slow/small.raw --images slow --record recorded --threads 2
	start_monitor recording raw=images/small.raw rounds=5 interval=5 firecracker
	finish "$started" recording
	await has_no_handlers
	stop_server
	head -n 1 recorded | grep -qx 'uffdwp-order 1' || fail "no order was recorded: $(head recorded)"
	tail -n 1 recorded | grep -qx "end $(($(wc -l <recorded) - 4))" || fail "the order's end: $(tail -n 1 recorded)"
	sed -n '3q;2p' recorded | grep -qx "length $((16 << 20))" || fail "the order's length: $(head recorded)"
	start_server --image slow/small.raw --order recorded
	start_monitor following raw=images/small.raw rounds=5 interval=5 firecracker
	finish "$started" following
	log_has 'no order is followed' && fail "the order was not followed: $(cat log)"
	stop_server
}

# Orders that are no orders: said, and content is what it is.
test_wrong_orders() {
	local good wrong i=0
	good=$(printf 'uffdwp-order 1\nlength %s\npage %s' $((megabytes << 20)) "$(getconf PAGESIZE)")
	for wrong in '' 'garbage' "$good" "$good"$'\nend 1' "$good"$'\n0 4096\nend 2' "$good"$'\n1 4096\nend 1' "$good"$'\n0 0\nend 1' \
		"$good"$'\n99999999999999999999 4096\nend 1' "$good"$'\n-4096 4096\nend 1' "$good"$'\n18446744073709547520 8192\nend 1' \
		"$good"$'\n0 4096\nend 1\nmore' $'uffdwp-order 1\nlength 4096\npage 4096\nend 0' $'uffdwp-order 1\nlength 0\npage 0\nend 0'; do
		printf '%s\n' "$wrong" >wrong
		start_server --image images/base.raw --order wrong
		start_monitor "wrong$((++i))" image=base.raw raw=images/base.raw rounds=1 interval=1
		finish "$started" "wrong$i" >/dev/null
		log_has 'no order is followed: "wrong" is no order' || fail "a wrong order was followed: $wrong"
		stop_server
	done
	echo "serve: $i wrong orders were not followed"
}

# Beside the image, where none is there.
test_order_beside() {
	cp --sparse=always images/base.raw images/other.raw
	start_server --images images
	start_monitor beside image=other.raw raw=images/base.raw rounds=1 interval=1
	finish "$started" beside
	[[ -s images/other.raw.order ]] || echo "not tested here: an order beside the image: nothing was waited for"
	stop_server
	start_server --images images --no-order
	rm -f images/other.raw.order
	start_monitor none image=other.raw raw=images/base.raw rounds=1 interval=1
	finish "$started" none
	[[ ! -e images/other.raw.order ]] || fail "--no-order recorded one"
	stop_server
}

# Discards while pages are being fetched.
test_discard_in_restore() {
	start_server --image slow/small.raw --no-order
	start_monitor balloon raw=images/small.raw rounds=10 interval=5 firecracker
	finish "$started" balloon
	await has_no_handlers
	stop_server
}

test_slow_disk() {
	if ! mount_slow 20; then
		echo "not tested here: a slow disk: nbdkit or nbdfuse is missing or cannot mount: $(cat nbdfuse.out 2>/dev/null)"
		return
	fi
	test_handler_killed
	test_handler_killed_later
	test_handler_killed_spared
	test_stop_in_restore
	test_stop_of_group
	test_discard_in_restore
	test_order
	unmount_slow
}

dd if=/dev/urandom of=images/base.raw bs=1M count=$((megabytes / 2)) status=none
truncate -s "${megabytes}M" images/base.raw
truncate -s "${megabytes}M" zeros.raw
cp --sparse=always images/base.raw images/small.raw
truncate -s 16M images/small.raw
test_command_line
test_socket
test_alone
test_firecracker
test_hostile
test_eight
test_server_killed
test_limits
test_control
test_wrong_orders
test_order_beside
test_slow_disk
echo "serve: all is as the stand-ins say"
