#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The commands of uffdwp-ctl for live processes, against a stand-in for such a process (control_stand_in.py): what they
# print, their exit codes, and that a process that lies is named, costs the others nothing and never writes to the terminal.
# What the library itself answers is tools_live_library.
set -euo pipefail

: "${UFFDWP_SOURCE:?run by ctest}" "${UFFDWP_CTL:?}"
python=${UFFDWP_PYTHON3:-/usr/bin/python3}
tests=$UFFDWP_SOURCE/tests/tools
if [[ ! -x $UFFDWP_CTL ]]; then
	echo "skipped: uffdwp-ctl was not built (UFFDWP_TOOLS?)"
	exit 77
fi
if ! "$python" -c '' 2>/dev/null; then
	echo "skipped: there is no $python"
	exit 77
fi

scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-live.XXXXXX")
# shellcheck source=tests/tools/begun.sh
. "$UFFDWP_SOURCE/tests/tools/begun.sh"
trap begin_over EXIT
cd "$scratch"
mkdir run
export XDG_RUNTIME_DIR=$scratch/run LC_ALL=C.UTF-8

# stand_in [LIE]: sets `pid`.
stand_in() {
	begin "$python" "$tests/control_stand_in.py" "$scratch/run" "$@"
}

ctl() {
	timeout 100 "$UFFDWP_CTL" "$@"
}

# expect CODE PATTERN COMMAND...: ends so, and says so (on either stream).
expect() {
	local code=$1 pattern=$2 status=0
	shift 2
	ctl "$@" >said 2>&1 || status=$?
	[[ $status -eq $code ]] || fail "$* ended with $status, expected $code: $(head -c 2000 said)"
	grep -qE -- "$pattern" said || fail "$* does not say '$pattern': $(head -c 2000 said)"
	is_clean said "$*"
}

# For commands that ask all processes: for root these are also those of other programs of this machine, which may refuse.
expect_of_all() {
	local pattern=$1
	shift
	ctl "$@" >said 2>&1 || true
	grep -qE -- "$pattern" said || fail "$* does not say '$pattern': $(head -c 2000 said)"
	is_clean said "$*"
}

# Valid UTF-8 without control characters, and lines.
is_clean() {
	iconv -f UTF-8 -t UTF-8 "$1" >/dev/null || fail "$2: not UTF-8"
	! LC_ALL=C grep -q '[[:cntrl:]]' <(tr -d '\n' <"$1") || fail "$2: control characters"
	! grep -qP '[\x{80}-\x{9f}\x{202a}-\x{202e}]' "$1" || fail "$2: control characters of Unicode"
}

# An expression of Python over `all`, the JSON in a file.
json() {
	"$python" -c 'import json, sys
all = json.load(open(sys.argv[1]))
result = eval(sys.argv[2])
print(result if result is not True else "yes")' "$1" "$2"
}

list_and_stat() {
	expect_of_all "^ *PID +PROGRAM +REGION +MEMORY +MECHANISM +DELIVERY +LENGTH +STATE" list
	expect_of_all "^ *$pid +bank +1 +shmem +marker +thread +256 MiB +live, 2 tracks, 1 view, child 4711$" list
	expect_of_all "^ *$pid +bank +2 +anonymous +rearm +inline +64 KiB +dead: it was unmapped" list
	expect_of_all "^$pid:2$" list --targets
	expect 0 "^ *$pid +bank +1 " list "--socket=run/uffdwp/$pid.sock"
	ctl list --json >list.json 2>err || true
	[[ $(json list.json "[p['program'] for p in all['processes'] if p['pid'] == $pid]") == "['bank']" ]] || fail "list --json"
	for row in 'armed +65,536 pages, 100.0 %' 'lost +12 pages: hole 3, swap 9; armed again 12' 'dirty +123 pages, 0.2 %' \
		'memory +256 MiB at 0x7f0000000000, 65,536 pages of 4 KiB, may grow to 512 MiB' \
		'latency +thread: mean .* p50 16.4 us, p90 32.8 us, p99 131 us, p99.9 1 ms, most 1 ms' \
		'restore +running; 25.0 % of 1,000 pages'; do
		expect 0 "$row" stat "$pid:1"
	done
	ctl stat --json "$pid:1" >stat.json
	[[ $(json stat.json "all['processes'][0]['regions'][0]['lost_by']['swap']") == 9 ]] || fail "stat --json"
	expect 0 "65,536 pages armed and looked at; 2 of them" audit "$pid:1"
	expect 0 '"pages_lost":2' audit "$pid:1" --json
	expect 0 "16 pages are armed now" arm "$pid:1" 0x1000 64K
	expect 0 " 0 pages are armed now" disarm "$pid:1"
	expect 0 "65,536 pages are armed now" arm "$pid:1"
}

refuse() {
	expect 2 "'x' is no PID or PID:REGION" stat x
	expect 2 "'$pid:' is no PID:REGION" audit "$pid:"
	expect 2 "PID:REGION is missing" audit
	expect 2 "'$pid:1:2' is no" stat "$pid:1:2"
	expect 2 "is no PID" metrics "$pid:1"
	expect 2 "where the image goes is missing" snapshot "$pid:1"
	expect 2 "--compress takes a number from 1 to 19" snapshot "$pid:1" x.img --compress 20
	expect 2 "--compress needs --parent" snapshot "$pid:1" x.img --compress 2
	expect 2 "--mode takes an octal number" snapshot "$pid:1" x.img --mode 8
	expect 2 "--arming takes auto, rounds or move" snapshot "$pid:1" x.img --arming fast
	expect 2 "--rate takes bytes" snapshot "$pid:1" x.img --rate 9999999T
	expect 2 "LENGTH is missing" arm "$pid:1" 4096
	expect 2 "--per-second takes a number from 1 to 100000" trace "$pid" --per-second 0
	expect 2 "--interval takes a time" watch --interval 1ms
	expect 3 "there is no process 999999999" stat 999999999
	expect 3 "process $$ .* has no control socket: start it with UFFDWP_CONTROL=1" stat $$
	for command in stat audit arm disarm trace abort watch; do
		expect 3 "process $pid \(.*\) has no region 7: it has 1, 2" $command "$pid:7"
	done
	expect 3 "has no region 7: it has 1, 2" snapshot "$pid:7" x.img
	expect 1 "the range is not of the region: it has 256 MiB \(ERANGE\)" arm "$pid:1" 0 1T
	expect 3 "No such file" stat --socket=folder/none.sock
	: >none.sock
	expect 4 "is none" stat --socket=none.sock
}

take_snapshots() {
	expect 0 "$PWD/a.img is complete: 256 MiB of memory, 256 MiB written" snapshot "$pid:1" a.img
	[[ -s a.img ]] || fail "there is no image"
	expect 1 "there is no image: writing the image: no space left: free some, and begin again \(ENOSPC\)" \
		snapshot "$pid:1" nospace.img
	ctl snapshot "$pid:1" a.img --json >snapshot.json
	[[ $(json snapshot.json "all['state']") == committed ]] || fail "snapshot --json"
	expect 0 "snapshot [0-9]+ has begun" snapshot "$pid:1" long-b.img --parent a.img --keep -z 3 --rate 100M --pool 1G \
		--arming move --mode 640 --no-wait
	[[ $(json long-b.img.request "[all[k] for k in ('region', 'keep', 'compress', 'rate_bytes', 'pool_bytes', 'arming', 'mode')]") == \
		"[1, True, 3, 104857600, 1073741824, 'move', 416]" ]] || fail "the request: $(<long-b.img.request)"
	[[ $(json long-b.img.request "(all['path'], all['parent'])") == "('$PWD/long-b.img', '$PWD/a.img')" ]] || fail "the paths"
	expect 1 "bank $pid, region 1: snapshot [0-9]+ of it is under way \($PWD/long-b.img, begun by uffdwp-ctl; 0.0 % are written\): wait .*abort $pid:1 \(EBUSY\)" \
		snapshot "$pid:1" c.img
	expect 0 "was asked to end without an image" abort "$pid:1"
	expect 1 "no such snapshot runs|asks for" abort "$pid:1"
}

# While a fork makes its cut the process is asked again; what does not end is refused after a while, in words of the tool's.
snapshot_beside_cuts() {
	local honest=$pid
	stand_in forks
	expect 0 "is complete" snapshot "$pid:1" fork.img
	stand_in fork
	expect 1 "a view or a child of this region is just being made \(EBUSY\)" snapshot "$pid:1" fork.img
	stand_in own
	expect 1 "snapshot 7 of it has ended \(begun by the program\), and the program has not released it within 5 s" snapshot "$pid:1" own.img
	pid=$honest
}

# A signal aborts the snapshot; where the process is gone it is not known what became of it.
abort_by_signal() {
	local settled=$pid status=0 client
	stand_in
	timeout 100 "$UFFDWP_CTL" snapshot "$pid:1" long.img >said 2>&1 &
	client=$!
	until_there long.img.request
	kill -TERM "$client"
	wait "$client" || status=$?
	[[ $status -eq 1 ]] || fail "after SIGTERM: $status: $(<said)"
	grep -q "aborting snapshot 1" said || fail "$(<said)"
	grep -q "there is no image: it was aborted (ECANCELED)" said || fail "$(<said)"
	rm long.img.request
	ctl snapshot "$pid:1" long.img >said 2>&1 &
	client=$!
	until_there long.img.request
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null || true
	status=0
	wait "$client" || status=$?
	[[ $status -eq 4 ]] || fail "the process was killed: $status: $(<said)"
	grep -q "Whether there is an image is not known" said || fail "$(<said)"
	[[ -S run/uffdwp/$pid.sock ]] || fail "the stand-in was to leave its socket"
	expect_of_all "bank" list
	[[ ! -S run/uffdwp/$pid.sock ]] || fail "the socket of a process that is gone was left"
	pid=$settled
}

until_there() {
	for _ in {1..1000}; do
		[[ ! -s $1 ]] || return 0
		sleep 0.1
	done
	fail "$1 does not appear"
}

trace_and_watch() {
	expect 0 "^[0-9:.]+ +$pid +.*0x00007f000000[0-9a-f]{4} +1\+0x[0-9a-f]+ +write " trace "$pid:1" --seconds 1
	grep -qE "[0-9,]+ of [0-9,]+ faults came here; [0-9,]+ were left out by --per-second, [0-9,]+ had no room" said ||
		fail "trace: $(tail -1 said)"
	ctl trace "$pid" --seconds 1 --json >trace.json 2>/dev/null
	tail -n 1 trace.json >line.json # the tick is last
	[[ $(json line.json "all['seen'] == 4 * all['sent'] and all['dropped'] == 2 * all['sent'] and all['last']") == yes ]] || fail "tick"
	head -n 1 trace.json >line.json
	[[ $(json line.json "all['thread'] != '?' and all['offset'] == 0") == yes ]] || fail "trace: $(<line.json)"
	expect 0 "^ +[0-9,]+ +1  0x0-0x40000$" trace "$pid:1" --seconds 1 --summary
	expect 0 "^ +[0-9,]+ +$pid  " trace "$pid:1" --seconds 1 --summary
	ctl trace "$pid" --seconds 1 --summary --json >sum.json
	[[ $(json sum.json "sum(t['writes'] for t in all['threads']) == all['shown'] == sum(b['writes'] for b in all['blocks'])") == yes ]] ||
		fail "trace --summary --json: $(<sum.json)"
	trace_quietly
	expect 0 "^[0-9:]{8} bank $pid, region 1: .*restore 25.0 %.* [0-9,]+/s faults, armed 65,536, dirty 123, lost 12" \
		watch "$pid" --count 2 -i 200ms
	[[ $(wc -l <said) -eq 4 ]] || fail "watch: two looks at two regions: $(<said)"
	ctl watch --json --count 2 -i 200ms "$pid" >watch.json
	[[ $(wc -l <watch.json) -eq 2 ]] || fail "watch --json"
}

# Where nothing is written there is one line, and no table; JSON is what it always is.
trace_quietly() {
	local honest=$pid options
	stand_in quiet
	for options in "" "--summary"; do
		# shellcheck disable=SC2086 # an option, or none
		expect 0 "^(bank|python3) $pid: no fault within .*nothing wrote to an armed page .*uffdwp-ctl arm" trace "$pid" --seconds 1 $options
		[[ $(wc -l <said) -eq 1 ]] || fail "trace of nothing $options: $(<said)"
	done
	ctl trace "$pid" --seconds 1 --summary --json >sum.json 2>err
	[[ $(json sum.json "all['threads'] == [] and all['blocks'] == [] and all['shown'] == 0") == yes ]] || fail "$(<sum.json)"
	[[ ! -s err ]] || fail "trace --json says: $(<err)"
	ctl trace "$pid:1" --seconds 1 --json | tail -n 1 >line.json
	[[ $(json line.json "all['event'] == 'tick' and all['seen'] == 0") == yes ]] || fail "$(<line.json)"
	stand_in full
	expect 0 "1,000 faults within .*none of them came here" trace "$pid" --seconds 1 --summary
	[[ $(wc -l <said) -eq 1 ]] || fail "trace of nothing: $(<said)"
	pid=$honest
}

print_metrics() {
	ctl metrics "$pid" >metrics.prom
	"$python" "$tests/metrics_check.py" <metrics.prom || fail "metrics: $(head -5 metrics.prom)"
	grep -q "^uffdwp_pages_lost_total{pid=\"$pid\",program=\"bank\",region=\"1\",cause=\"swap\"} 9$" metrics.prom || fail "metrics"
	ctl metrics >metrics.prom 2>err || true
	"$python" "$tests/metrics_check.py" <metrics.prom || fail "metrics of all"
}

# A terminal of its own: the alternate screen is left, keys are read as before, sizes are heeded.
watch_in_terminal() {
	local terminal=("$python" "$tests/in_terminal.py")
	TERM=xterm "${terminal[@]}" 30x100 'wait:q quits' "wait:[####" 'size:8x40' 'wait:bank' 'size:2x10' 'wait:... and' \
		'size:50x200' 'wait:p99.9' type:q -- "$UFFDWP_CTL" watch "$pid" >said
	tail -1 said | grep -q '^ended 0, the terminal is as it was' || fail "watch, q: $(tail -1 said)"
	grep -qF $'\e[?1049h' said || fail "watch has no screen of its own"
	grep -qF $'\e[?25h\e[?1049l' said || fail "watch does not give the screen back"
	TERM=xterm "${terminal[@]}" 24x80 'wait:restore' 'type:\x03' -- "$UFFDWP_CTL" watch "$pid" >said
	tail -1 said | grep -q '^ended 0, the terminal is as it was' || fail "watch, Ctrl-C: $(tail -1 said)"
	TERM=xterm "${terminal[@]}" 24x80 'wait:restore' 'type:\x1a' 'wait:[?1049l' stopped: signal:18 'wait:[?1049h' 'wait:bank' type:q \
		-- "$UFFDWP_CTL" watch "$pid" >said
	tail -1 said | grep -q '^ended 0, the terminal is as it was' || fail "watch, Ctrl-Z: $(tail -1 said)"
	TERM=dumb "${terminal[@]}" 24x80 'wait:region 1' signal:15 -- "$UFFDWP_CTL" watch "$pid" >said
	! grep -q $'\e' said || fail "watch writes escapes to a dumb terminal"
	TERM=xterm "${terminal[@]}" 24x80 'wait:left' 'wait:is complete' -- "$UFFDWP_CTL" snapshot "$pid:1" bar.img >said
	tail -1 said | grep -q '^ended 0, the terminal is as it was' || fail "snapshot in a terminal: $(tail -1 said)"
	TERM=xterm "${terminal[@]}" 24x80 'wait:left' 'type:\x03' -- "$UFFDWP_CTL" snapshot "$pid:1" long.img >said
	tail -1 said | grep -q '^ended 1, the terminal is as it was' || fail "snapshot, Ctrl-C: $(tail -1 said)"
}

# What is preserved for writers is not written yet: neither the bar nor watch counts it, and for a delta the whole is
# what was written since its parent.
show_what_is_written() {
	local terminal=("$python" "$tests/in_terminal.py") honest=$pid
	stand_in preserve
	TERM=xterm "${terminal[@]}" 24x100 'wait: 10.0 %' 'wait: written, 154 MiB preserved' 'type:\x03' -- "$UFFDWP_CTL" snapshot "$pid:1" long.img >said
	tail -1 said | grep -q '^ended 1' || fail "snapshot of much that is preserved: $(tail -1 said)"
	! grep -q ' [67]0.0 %' said || fail "the bar counts what is preserved: $(<said)"
	TERM=xterm "${terminal[@]}" 24x100 'wait: 50.0 %' 'type:\x03' -- "$UFFDWP_CTL" snapshot "$pid:1" long.img --parent a.img >said
	tail -1 said | grep -q '^ended 1' || fail "a delta: $(tail -1 said)"
	expect 0 "has begun" snapshot "$pid:1" long.img --no-wait
	expect 0 "snapshot 10.0 %" watch "$pid" --count 1
	expect 0 "45,87. of 65,536 pages saved or preserved, 70.0 %" stat "$pid"
	expect 0 "was asked" abort "$pid:1"
	pid=$honest
}

# Each of them is named, and the honest process is listed all the same.
lie() {
	local honest=$pid lies=(half megabyte endless deep objects number nul types row missing range float id version noversion \
		refusal hangup)
	local -A liars=()
	for name in "${lies[@]}"; do
		stand_in "$name"
		liars[$name]=$pid
	done
	for command in list stat metrics "watch --lines --count 1" "watch --json --count 1"; do
		# shellcheck disable=SC2086 # a command and its options
		ctl $command >out 2>err || true
		is_clean out "$command"
		is_clean err "$command"
		grep -qE "\b$honest\b" out || fail "$command lost the honest process"
		[[ $command != metrics ]] || "$python" "$tests/metrics_check.py" <out || fail "metrics beside liars"
		for name in "${lies[@]}"; do
			[[ $command == watch* ]] || grep -qE "process ${liars[$name]} \(.*\): ." err || fail "$command does not name $name"
		done
	done
	for name in "${lies[@]}"; do
		expect 4 "process ${liars[$name]} \(.*\): (its answer|it )" snapshot "${liars[$name]}:1" lie.img
	done
	for name in half megabyte types row missing range hangup; do
		expect 4 "process ${liars[$name]} \(.*\): (its answer|it )" stat "${liars[$name]}"
		expect 4 "process ${liars[$name]} \(.*\): (its answer|it )" trace "${liars[$name]}" --seconds 5
		expect 4 "process ${liars[$name]} \(.*\): (its answer|it )" watch "${liars[$name]}:1" --count 1
	done
	pid=$honest
}

# No command waits longer than 5 s for an answer, and the others are listed. All at once: it is only waiting.
be_silent() {
	local command honest=$pid waiting=() status name
	stand_in silent
	local silent=$pid
	stand_in unfinished
	for command in "list" "stat $silent" "stat $pid" "snapshot $silent:1 x.img" "audit $silent:1" "trace $silent" "watch $pid:1" \
		"watch --lines --count 1" "metrics $pid"; do
		name=${command//[ \/]/_}
		# shellcheck disable=SC2086 # a command and its options
		(status=0; ctl $command >"$name.out" 2>"$name.err" || status=$?; echo "$status" >"$name.status") &
		waiting+=("$!")
	done
	wait "${waiting[@]}"
	for name in list stat snapshot audit trace "watch_$pid" metrics; do
		grep -qE "process ($silent|$pid) \(.*\): it does not answer within 5 s" "$name"*.err || fail "$name: silent"
		grep -qx 4 "$name"*.status || fail "$name: silent: $(cat "$name"*.status)"
	done
	grep -q " $honest *bank\|^ *$honest *bank" list.out || fail "list lost the honest process"
	grep -q "bank $honest, region 1" watch_--lines*.out || fail "watch lost the honest process"
	grep -q "$pid: it does not answer within 5 s" watch_--lines*.out || fail "watch does not name the silent one"
	kill -KILL "$silent" "$pid"
	wait "$silent" "$pid" 2>/dev/null || true
	pid=$honest
}

until_says() {
	for _ in {1..1000}; do
		! grep -qE -- "$2" "$1" || return 0
		sleep 0.1
	done
	fail "$1 does not say '$2': $(head -c 2000 "$1")"
}

# A process that is stopped is named as such, and what was begun goes on when it does.
stop_and_go() {
	local honest=$pid command client status=0 stopped
	STAND_IN_SNAPSHOT_S=3 stand_in
	stopped=$pid
	kill -STOP "$stopped"
	for command in "stat $pid" "snapshot $pid:1 x.img" "audit $pid:1" "arm $pid:1" "abort $pid:1" "trace $pid" "watch $pid" "metrics $pid"; do
		# shellcheck disable=SC2086 # a command and its options
		expect 4 "process $pid \(.*\): it does not answer: it is stopped, by a signal or a debugger \(kill -CONT $pid\)" $command
	done
	[[ ! -e x.img.request ]] || fail "a process that is stopped was asked for a snapshot"
	for command in list stat "watch --lines --count 3 -i 100ms"; do
		# shellcheck disable=SC2086 # a command and its options
		expect_of_all "$pid\b.*: it does not answer: it is stopped" $command
		grep -qE "\b$honest\b.*\b(region )?1\b" said || fail "$command lost the honest process"
	done
	kill -CONT "$pid"
	ctl snapshot "$pid:1" stopped.img >said 2>&1 &
	client=$!
	until_there stopped.img.request
	kill -STOP "$pid"
	until_says said "process $pid \(.*\) is stopped, by a signal or a debugger: waiting until it goes on"
	kill -CONT "$pid"
	wait "$client" || status=$?
	[[ $status -eq 0 ]] || fail "the snapshot of a process that was stopped: $status: $(<said)"
	grep -q "is complete" said || fail "the snapshot of a process that was stopped: $(<said)"
	timeout 100 "$UFFDWP_CTL" watch "$pid" --lines -i 200ms >watched 2>&1 &
	client=$!
	until_says watched "bank $pid, region 1"
	kill -STOP "$pid"
	until_says watched "$pid: it does not answer: it is stopped"
	kill -CONT "$pid"
	for _ in {1..1000}; do
		! sed '1,/it is stopped/d' watched | grep -q "bank $pid, region 1" || break
		sleep 0.1
	done
	kill -TERM "$client"
	wait "$client" || fail "watch of a process that was stopped: $(tail -3 watched)"
	sed '1,/it is stopped/d' watched | grep -q "bank $pid, region 1" || fail "watch does not go on: $(tail -3 watched)"
	trace_stopped
	pid=$honest
}

# A trace goes on when the process does; and may be ended before.
trace_stopped() {
	local client status=0
	timeout 100 "$UFFDWP_CTL" trace "$pid:1" --json >traced 2>said &
	client=$!
	until_says traced '"event":"tick"'
	kill -STOP "$pid"
	until_says said "process $pid \(.*\) is stopped, by a signal or a debugger: waiting"
	wc -l <traced >before
	kill -CONT "$pid"
	for _ in {1..1000}; do
		[[ $(wc -l <traced) -le $(<before) ]] || break
		sleep 0.1
	done
	[[ $(wc -l <traced) -gt $(<before) ]] || fail "a trace does not go on: $(<said)"
	: >said
	kill -STOP "$pid"
	until_says said "is stopped"
	kill -TERM "$client"
	wait "$client" || status=$?
	[[ $status -eq 0 ]] || fail "a trace of a process that stays stopped: $status: $(<said)"
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null || true
}

lie_with_controls() {
	local command honest=$pid
	stand_in order
	expect 4 "its regions are not in order" stat "$pid"
	stand_in many
	ctl metrics "$pid" >many.out
	[[ $(grep -c '^uffdwp_faults_total' many.out) -eq 20000 ]] || fail "many regions"
	ctl list >many.out 2>err || true
	[[ $(grep -c "^ *$pid " many.out) -eq 20000 ]] || fail "many regions"
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null || true
	stand_in no
	expect 1 "no.x1b.2J, and .xff" stat "$pid"
	stand_in evil
	for command in list "list --json" "list -t" "stat $pid" "stat --json $pid" "metrics $pid" "watch $pid --count 2 -i 100ms" \
		"watch $pid --count 1 --json" "audit $pid:1" "audit --json $pid:1" "snapshot $pid:1 evil.img"; do
		# shellcheck disable=SC2086 # a command and its options
		ctl $command >said 2>err || true
		is_clean said "$command"
		is_clean err "$command"
		[[ -s said || -s err ]] || fail "$command said nothing"
		[[ $command != *json* ]] || json said "True" >/dev/null || fail "$command is no JSON"
		[[ $command != metrics* ]] || "$python" "$tests/metrics_check.py" <said || fail "metrics"
	done
	stand_in evil trace
	for command in "trace $pid --seconds 1" "trace $pid --seconds 1 --json" "trace $pid --seconds 1 --summary"; do
		# shellcheck disable=SC2086 # a command and its options
		ctl $command >said 2>&1 || fail "$command: $(head -c 500 said)"
		is_clean said "$command"
	done
	pid=$honest
}

# Names that are no sockets of ours are left alone; a folder that others may write to is not looked into.
distrust() {
	mkdir run/uffdwp/1234567.sock
	: >run/uffdwp/name.sock
	: >run/uffdwp/99999999.sock
	ln -s "$pid.sock" run/uffdwp/$$.sock
	expect 3 "uffdwp/$$.sock: what has the name of a socket is none: left out" stat $$
	grep -q "process $$ .* has no control socket" said || fail "a link: $(<said)"
	rm run/uffdwp/$$.sock
	ctl list >said 2>&1 || true
	[[ -d run/uffdwp/1234567.sock && -e run/uffdwp/name.sock && -e run/uffdwp/99999999.sock ]] || fail "other files were removed"
	rmdir run/uffdwp/1234567.sock
	chmod 0750 run/uffdwp
	expect 3 "has no control socket" stat "$pid"
	chmod 0700 run/uffdwp
	expect 0 "region 1" stat "--socket=run/uffdwp/$pid.sock"
	[[ $(id -u) -eq 0 ]] || return 0
	# Another user gets nothing of it; root looks into the folders of users.
	chmod 755 "$scratch"
	mkdir -m 777 other
	if ! setpriv --reuid=65534 --clear-groups "$UFFDWP_CTL" version >said 2>&1; then
		echo "not tested here: another user, which cannot run $UFFDWP_CTL"
		return 0
	fi
	setpriv --reuid=65534 --clear-groups env XDG_RUNTIME_DIR="$scratch/other" "$UFFDWP_CTL" list --targets >said 2>&1 || true
	! grep -q "^$pid:" said || fail "another user sees: $(<said)"
	setpriv --reuid=65534 --clear-groups env XDG_RUNTIME_DIR="$scratch/run" "$UFFDWP_CTL" list --targets >said 2>&1 || true
	! grep -q "^$pid:" said || fail "another user sees: $(<said)"
	status=0
	setpriv --reuid=65534 --clear-groups env XDG_RUNTIME_DIR="$scratch/run" "$UFFDWP_CTL" stat "$pid" >said 2>&1 || status=$?
	[[ $status -eq 3 ]] || fail "another user: $status"
	grep -q "is user 0's: only that user and root may ask it" said || fail "another user: $(<said)"
}

# Its number is none of this namespace's, but it listens.
keep_unseen() {
	unshare --pid --fork --mount-proc "$UFFDWP_CTL" list --targets >said 2>&1 || true
	if grep -q 'unshare' said; then
		echo "not tested here: another PID namespace: $(head -n 1 said)"
		return
	fi
	grep -q "$pid.sock: process $pid is not seen from here" said || fail "another PID namespace: $(<said)"
	[[ -S run/uffdwp/$pid.sock ]] || fail "the socket of a process of another PID namespace was removed"
}

stand_in
list_and_stat
keep_unseen
refuse
take_snapshots
snapshot_beside_cuts
trace_and_watch
print_metrics
distrust
abort_by_signal
be_silent
stop_and_go
lie_with_controls
lie
if "$python" -c 'import pty; pty.openpty()' 2>/dev/null; then
	watch_in_terminal
	show_what_is_written
else # a chroot may have no /dev/pts
	echo "not tested here: what is shown in a terminal: there is no pseudo-terminal"
fi
echo "live: honest and lying processes were asked"
