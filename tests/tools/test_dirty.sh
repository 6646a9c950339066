#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# uffdwp-ctl dirty with programs of other people: SQLite, Python, Redis, shells on a terminal. Each figure has a second
# witness that the program itself gives; what a program prints is compared with what it prints without us.
set -euo pipefail

: "${UFFDWP_CTL:?run by ctest}"
if [[ ! -x $UFFDWP_CTL ]]; then
	echo "skipped: uffdwp-ctl was not built (UFFDWP_TOOLS?)"
	exit 77
fi
if ! refusal=$("$UFFDWP_CTL" dirty -q -- true 2>&1); then
	echo "skipped: nothing can be tracked here: $refusal"
	exit 77
fi

scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-dirty.XXXXXX")
started= # a process of ours that must not outlive us
cleanup() {
	[[ -z $started ]] || kill -KILL "$started" 2>/dev/null || true
	rm -rf "$scratch"
}
trap cleanup EXIT
cd "$scratch"

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

missing() {
	command -v "$1" >/dev/null && return 1
	echo "not tested here: $2: there is no $1"
}

# A member of a report, by the path that SQLite's JSON functions take.
member() {
	sqlite3 :memory: "SELECT json_extract(CAST(readfile('$1') AS TEXT), '$2')"
}

# What all mappings of a name wrote: different bytes.
unique_of() {
	sqlite3 :memory: "SELECT total(json_extract(value, '\$.unique_bytes')) FROM
		json_each(CAST(readfile('$1') AS TEXT), '\$.mappings') WHERE json_extract(value, '\$.name') = '$2'" |
		cut -d. -f1
}

between() { # what, value, least, most
	[[ $2 -ge $3 && $2 -le $4 ]] || fail "$1: $2 is not from $3 to $4"
	echo "$1: $2, from $3 to $4 expected"
}

# A script that ends when the report that grows in $1 has got another line, so that what was written before was looked at:
# what is given back between two looks is not seen.
until_looked_at() {
	cat >until-looked-at <<-END
		#!/bin/sh
		[ -n "\$OBSERVED" ] || exit 0
		seen=\$(grep -c populated $1)
		until [ "\$(grep -c populated $1)" -gt "\$seen" ]; do sleep 0.1; done
	END
	chmod +x until-looked-at
}

check_svg() {
	if command -v xmllint >/dev/null; then
		xmllint --noout "$1"
	elif command -v python3 >/dev/null; then
		python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$1"
	else
		echo "not tested here: that the picture is well-formed: neither xmllint nor python3"
	fi
	grep -q '>seconds</text>' "$1" || fail "$1 has no time axis"
	grep -q "Share of the row's pages" "$1" || fail "$1 has no legend"
}

test_sqlite() {
	missing sqlite3 "a database in memory" && return
	cat >load.sql <<-'END'
		CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
		WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 200000)
			INSERT INTO t SELECT x, zeroblob(200) FROM c;
		SELECT count(*), sum(length(v)) FROM t;
		SELECT page_count * page_size FROM pragma_page_count, pragma_page_size;
		.shell ./until-looked-at
	END
	until_looked_at sqlite.txt
	sqlite3 :memory: <load.sql >bare.out 2>bare.err
	OBSERVED=1 "$UFFDWP_CTL" dirty --json sqlite.json --svg sqlite.svg -o sqlite.txt -- sqlite3 :memory: \
		<load.sql >observed.out 2>observed.err
	cmp bare.out observed.out
	cmp bare.err observed.err
	local database
	database=$(tail -n 1 bare.out)
	between "sqlite3: bytes of different pages" "$(member sqlite.json '$.unique_bytes')" \
		"$database" $((database * 2 + 8388608))
	between "sqlite3: of them on the heap" "$(unique_of sqlite.json '[heap]')" \
		$((database / 2)) $((database * 2 + 8388608))
	check_svg sqlite.svg
	grep -q '^Increments' sqlite.txt || fail "the summary has no increments"
}

test_exec_is_followed() {
	missing sqlite3 "exec of a shell" && return
	"$UFFDWP_CTL" dirty -q --json exec.json -- sh -c 'exec sqlite3 :memory: "SELECT length(zeroblob(50000000))"' >/dev/null
	[[ $(member exec.json '$.programs') -eq 2 ]] || fail "exec was not followed"
	"$UFFDWP_CTL" dirty -q --json child.json -- sh -c 'sqlite3 :memory: "SELECT 1"; exit 0' >/dev/null
	[[ $(member child.json '$.programs') -eq 1 ]] || fail "a child was measured"
}

test_python() {
	missing /usr/bin/python3 "Python" && return
	missing sqlite3 "the figures of Python" && return
	cat >program.py <<-'END'
		import mmap, os
		memory = mmap.mmap(-1, 40 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
		shared = mmap.mmap(-1, 8 << 20)
		for at in range(0, 30 << 20, 4096):
		    memory[at] = 1
		for at in range(0, 4 << 20, 4096):
		    shared[at] = 1
		print(sum(memory[at] for at in range(0, 40 << 20, 4096)), flush=True)
		os._exit(0) # without giving its memory back first
	END
	/usr/bin/python3 program.py >bare.out
	"$UFFDWP_CTL" dirty -q --small-pages --json python.json --svg python.svg -- /usr/bin/python3 program.py >observed.out
	cmp bare.out observed.out
	between "python3: bytes of shared memory" "$(unique_of python.json 'shared anon')" $((4 << 20)) $((4 << 20))
	# 34 MiB are written, and 10 MiB only read, which count where the kernel shares no zero page.
	between "python3: bytes of different pages" "$(member python.json '$.unique_bytes')" $((34 << 20)) $((60 << 20))
	check_svg python.svg
}

# The server is the same program as the checker of its files, by another name: no package is needed that enables a service.
redis_server() {
	local program
	program=$(command -v redis-server || command -v redis-check-rdb) || {
		echo "not tested here: Redis: there is no redis-server and no redis-check-rdb"
		return 1
	}
	ln -sf "$(realpath "$program")" redis-server
}

test_redis() {
	redis_server || return 0
	missing redis-benchmark "Redis" && return
	missing sqlite3 "the figures of Redis" && return
	local port=$((20000 + RANDOM % 20000)) used status=0
	"$UFFDWP_CTL" dirty -q --json redis.json --svg redis.svg -- ./redis-server --port "$port" --bind 127.0.0.1 \
		--save '' --appendonly no --dir "$scratch" >redis.log 2>&1 &
	started=$!
	until redis-cli -h 127.0.0.1 -p "$port" ping >/dev/null 2>&1; do
		kill -0 "$started" 2>/dev/null || fail "redis-server ended: $(cat redis.log)"
		sleep 0.1
	done
	redis-benchmark -h 127.0.0.1 -p "$port" -n 50000 -r 50000 -d 300 -t set -q >/dev/null
	used=$(redis-cli -h 127.0.0.1 -p "$port" info memory | sed -nE 's/^used_memory:([0-9]+).*/\1/p')
	kill -TERM "$started"
	wait "$started" || status=$?
	started=
	[[ $status -eq 0 ]] || fail "redis-server ended with $status: $(cat redis.log)"
	grep -q 'bye bye' redis.log || fail "redis-server did not get SIGTERM"
	between "redis-server: bytes of different pages" "$(member redis.json '$.unique_bytes')" \
		$((used / 2)) $((used * 3 + 33554432))
	check_svg redis.svg
}

test_terminal() {
	missing script "a terminal" && return
	if ! script -qec true /dev/null </dev/null >/dev/null 2>&1; then # a chroot may have no /dev/pts
		echo "not tested here: a terminal: script(1) gets none"
		return
	fi
	# The terminal is the program's, too: one line at the bottom, and the scrolling part is given back at the end.
	: >bottom.out
	script -qec "stty rows 30 cols 100; '$UFFDWP_CTL' dirty -o summary.txt -- sh -c 'until [ -s go ]; do sleep 0.1; done; echo done'" \
		/dev/null </dev/null >bottom.out &
	started=$!
	until grep -q 'populated' bottom.out; do
		kill -0 "$started" 2>/dev/null || fail "the program ended early"
		sleep 0.1
	done
	echo 1 >go
	wait "$started"
	started=
	grep -qF $'\033[1;29r' bottom.out || fail "the bottom line was not set apart"
	tail -c 60 bottom.out | grep -qF $'\033[1;30r' || fail "the terminal was not put back"
	grep -q 'done' bottom.out || fail "the program's own output is not there"
	rm go
	# The terminal is not the program's: a block, redrawn in place.
	: >block.out
	script -qec "'$UFFDWP_CTL' dirty -o summary.txt -- sh -c 'until [ -s go ]; do sleep 0.1; done' </dev/null >/dev/null" \
		/dev/null </dev/null >block.out &
	started=$!
	until grep -qF $'\033[6A' block.out; do
		kill -0 "$started" 2>/dev/null || fail "the program ended early"
		sleep 0.1
	done
	echo 1 >go
	wait "$started"
	started=
	tail -c 20 block.out | grep -qF $'\033[J' || fail "the block was not taken away"
	rm go
}

test_plain_lines() {
	# Ends when it sees the line that is written about it.
	# shellcheck disable=SC2016,SC2094
	"$UFFDWP_CTL" dirty -- sh -c 'until grep -q "populated" "$0" 2>/dev/null; do sleep 0.1; done' lines.err 2>lines.err
	grep -qE '^uffdwp-ctl dirty: [0-9.]+ s: ' lines.err || fail "no plain line"
	"$UFFDWP_CTL" dirty --quiet -- true 2>quiet.err
	[[ ! -s quiet.err ]] || fail "--quiet says something: $(cat quiet.err)"
}

test_job_control() {
	# A shell with jobs: ^Z, fg, and the status at the end.
	local status=0
	bash -c '
		set -m
		"$0" dirty -q -- sh -c "kill -TSTP 0; exit 5" &
		for try in {1..300}; do
			[[ -n $(jobs -s) ]] && break
			sleep 0.1
		done
		[[ -n $(jobs -s) ]] || exit 99
		fg %1 >/dev/null' "$UFFDWP_CTL" </dev/null 2>/dev/null || status=$?
	[[ $status -eq 5 ]] || fail "after a stop and fg the status is $status"
}

# uffdwp-ctl dirty executes uffdwp-dirty: beside it, else by PATH, else it says what is missing.
test_program_of_its_own() {
	local library status=0
	library=$(ldd "$UFFDWP_CTL" | sed -nE 's|.*libuffdwp.so.0 => (.*)/libuffdwp.so.0 .*|\1|p')
	mkdir alone empty
	cp "$UFFDWP_CTL" alone/
	PATH=$scratch/empty LD_LIBRARY_PATH=$library "$scratch/alone/uffdwp-ctl" dirty -- /bin/true 2>alone.err || status=$?
	[[ $status -eq 125 ]] || fail "without uffdwp-dirty it ends with $status: $(cat alone.err)"
	grep -q '^uffdwp-ctl dirty: the program uffdwp-dirty is neither beside uffdwp-ctl nor in PATH: install it' alone.err ||
		fail "without uffdwp-dirty it says: $(cat alone.err)"
	status=0
	PATH=${UFFDWP_CTL%/*}:$PATH LD_LIBRARY_PATH=$library "$scratch/alone/uffdwp-ctl" dirty -q -- sh -c 'exit 5' || status=$?
	[[ $status -eq 5 ]] || fail "by PATH it ends with $status"
	"${UFFDWP_CTL%/*}/uffdwp-dirty" -- true 2>own.err
	grep -q '^pages written by: true' own.err || fail "by its own name it says: $(cat own.err)"
	status=0
	"${UFFDWP_CTL%/*}/uffdwp-dirty" -- /nowhere 2>own.err || status=$?
	[[ $status -eq 127 ]] || fail "by its own name it ends with $status"
	grep -q '^uffdwp-dirty: /nowhere: ' own.err || fail "by its own name it says: $(cat own.err)"
}

test_program_of_its_own
test_sqlite
test_exec_is_followed
test_python
test_redis
test_terminal
test_plain_lines
test_job_control
echo "dirty: all is as the programs say"
