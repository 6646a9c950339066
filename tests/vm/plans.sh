#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What is booted, and what each guest does. A plan is a shell script of `step`s, see guest/init.
# usage: plans.sh kernels | specials | title BOOT | plan BOOT | quick BOOT | check
#
# `check` fails where a test of kernel/ is in no plan, and not among those that are left out either.
#
# The seconds of a step are those of a guest on a quiet machine of today; what ends it is a multiple of them (guest/init).
# Under emulation a wake-up on another CPU is dear, and dearer on a busy machine: tests that fault many thousand times
# take a minute or two. Each of those runs on the kernels where it has most to find (`long_tests_of`), the others on all.
# Left out altogether (`left_out`) is what takes minutes and looks for what is between threads of the library or inside the
# extension, not between library and kernel: the bank is the extension's job. And nbd, which needs a server that guests lack, and
# fork_preload, fork_refused and fork_memory, of which plan_fork has one part.

set -euo pipefail

# Boots in the order in which they begin: the long ones first.
stock_kernels=(markerless newest 6.12 6.1 5.10)
special_boots=(numa no-uring user)
quick_tests=(bad_input bad_sink doctor no_kernel probe probe_move move move_beside minor mprotect bypass track_bad
	foreign rights unload files eintr closed child_handlers child_descriptors)
left_out=(handler_lost moving causality control control_clients group rate snapshot snapshot_fails restore view lazy lazy_bad lazy_refused sqlite sqlite_calls sqlite_lazy
	sqlite_odd sqlite_shared sqlite_threads track track_vanish nbd fork_preload fork_refused fork_memory)

describe_boot() {
	case $1 in
	5.10) echo "bullseye's kernel: no write protection of shared memory, no minor faults" ;;
	6.1) echo "bookworm's kernel: markers, no WP_UNPOPULATED, no CONTINUE_MODE_WP" ;;
	6.12) echo "the kernel of bookworm-backports" ;;
	newest) echo "the newest kernel that backports have" ;;
	markerless) echo "built from the newest source, without PTE markers: every zap takes the wp bit along" ;;
	numa) echo "two NUMA nodes: where handlers, buffers and regions are" ;;
	no-uring) echo "io_uring is disabled (kernel.io_uring_disabled=2)" ;;
	user) echo "an unprivileged user (vm.unprivileged_userfaultfd=0, /dev/userfaultfd closed)" ;;
	*) echo "$1" ;;
	esac
}

# What the control is to find there, where that is known.
matrix_options() {
	case $1 in
	5.10) echo "--bare=refused" ;;
	markerless) echo "--bare=missed --expect-losses" ;;
	6.1 | 6.12 | newest) echo "--bare=caught" ;;
	esac
}

long_tests_of() {
	case $1 in
	markerless) echo "adopt adopt_private child rearm audit owner content held" ;;
	newest) echo "adopt adopt_private child child_beside child_window delivery track_holes owner ksm limits cancel modes" ;;
	6.12) echo "adopt adopt_private child track_holes track_ranges fifo follow handlers dirty_manners" ;; # track_vanish takes longer under emulation than a guest may
	6.1) echo "adopt child child_beside child_window cut track_region owner content ksm modes dirty" ;;
	5.10) echo "child rearm region owner handlers stacks held limits dirty" ;;
	esac
}

plan_environment() {
	cat <<END
export NO_COLOR=1 TMPDIR=/tmp UFFDWP_CUTS=50 ${UFFDWP_SEED:+UFFDWP_SEED=$UFFDWP_SEED}
export UFFDWP_CTL=/world/bin/uffdwp-ctl UFFDWP_EXTENSION=/world/lib/uffdwp_sqlite.so
export UFFDWP_SHARED=/world/lib/libuffdwp.so
as=
END
}

# The same steps for root and for a user: "$as" goes before the command.
plan_tests() {
	local test
	for test in "$@"; do
		[[ $test == bad_input ]] && echo "export TMPDIR=/disk"
		echo "step test/$test 240 \$as kernel_$test"
		[[ $test == bad_input ]] && echo "export TMPDIR=/tmp"
	done
	return 0
}

plan_bank() {
	echo "step bank/$1-$2 120 \$as uffdwp-bank --size=4M --seconds=1 --snapshots=3 --mechanism=$1 --delivery=$2"
}

# What is played under stress of the methods to track: where each has most to find.
stressed_of() {
	case $1 in
	5.10) echo "anon by soft-dirty" ;;
	6.1) echo "by marker" ;;
	markerless) echo "by rearm" ;;
	*) echo "by async" ;;
	esac
}

# What doctor says of a move of page tables: where it works, and where not why.
move_of() {
	case $1 in
	5.10) echo "no +registration" ;;
	*) echo "yes +whole" ;;
	esac
}

# A program that was not changed, whose threads allocate while it forks: its children are the library's, or it runs as
# without it, and one line says why.
# usage: plan_fork has-child | says-why
plan_fork() {
	local run='uffdwp-ctl fork --small=0 %s -- kernel_fork_preload --role shadow >/tmp/fork 2>&1'
	# shellcheck disable=SC2059 # a format
	case $1 in
	has-child) echo "step fork 200 \$as sh -c '$(printf "$run" --verbose) && grep \"has child\" /tmp/fork >/dev/null'" ;;
	says-why) echo "step fork 200 \$as sh -c '$(printf "$run" '') && test \$(grep -c \"runs without it: \" /tmp/fork) = 1'" ;;
	esac
	echo 'step fork-said 20 cat /tmp/fork'
}

forks_of() {
	case $1 in
	5.10) echo says-why ;;
	*) echo has-child ;;
	esac
}

# Tracks need files that are no shared memory, and swap.
plan_track() {
	echo 'step track 300 env TMPDIR=/disk uffdwp_vm_track'
	echo "step stress-track 200 env TMPDIR=/disk UFFDWP_STRESS_SECONDS=10 UFFDWP_TRACK_ONLY='$(stressed_of "$1")'" \
		'uffdwp_vm_stress_track'
}

plan_kernel() {
	local long
	read -ra long <<<"$(long_tests_of "$1")"
	echo 'step doctor 60 uffdwp-ctl doctor'
	echo "step move-says-why 60 sh -c 'uffdwp-ctl doctor | tr -d [:cntrl:] | grep -E \"move +$(move_of "$1")\" >/dev/null'"
	echo "step matrix 300 uffdwp_vm_matrix $(matrix_options "$1")"
	plan_track "$1"
	case $1 in
	markerless) plan_bank rearm thread && plan_bank minor inline ;;
	5.10) plan_bank mprotect inline ;;
	esac
	plan_fork "$(forks_of "$1")"
	plan_tests "${quick_tests[@]}" "${long[@]}"
}

plan_numa() {
	echo 'step numa 120 uffdwp_vm_numa'
	echo 'step doctor 60 uffdwp-ctl doctor'
}

plan_no_uring() {
	cat <<'END'
echo 2 >/proc/sys/kernel/io_uring_disabled
step doctor 60 uffdwp-ctl doctor
step doctor-says-so 60 sh -c 'uffdwp-ctl doctor | grep -E "^ *io_uring +refused"'
END
	plan_bank marker thread
	plan_fork has-child
	plan_tests bad_sink doctor probe bypass closed files limits cancel image
}

plan_user() {
	cat <<'END'
echo 0 >/proc/sys/vm/unprivileged_userfaultfd
chmod 600 /dev/userfaultfd
as="/world/bin/setpriv --reuid=65534 --regid=65534 --clear-groups"
step doctor 60 $as uffdwp-ctl doctor
step doctor-says-so 60 $as sh -c 'uffdwp-ctl doctor | grep -E "user mode only +works; this one is taken"'
step matrix 300 $as uffdwp_vm_matrix
step track 300 env TMPDIR=/disk $as uffdwp_vm_track
END
	plan_fork says-why
	plan_tests bad_input bad_sink doctor probe minor mprotect closed files handlers stacks
}

# What a change must not break on any kernel, in a minute or two: the matrix of what preserves, and tracks where kernels
# differ in what they take for written.
plan_quick() {
	plan_environment
	echo 'step doctor 60 uffdwp-ctl doctor'
	echo "step matrix 300 uffdwp_vm_matrix $(matrix_options "$1") --only=preserve"
	case $1 in
	6.12 | newest) echo "step stress-track 200 env TMPDIR=/disk UFFDWP_STRESS_SECONDS=5 UFFDWP_TRACK_ONLY='memfd by async'" \
		'uffdwp_vm_stress_track' ;;
	esac
}

plan_of() {
	plan_environment
	case $1 in
	numa) plan_numa ;;
	no-uring) plan_no_uring ;;
	user) plan_user ;;
	*) plan_kernel "$1" ;;
	esac
}

# Every boot's tests, by their names in tests/kernel/.
planned_tests() {
	local boot
	for boot in "${stock_kernels[@]}" "${special_boots[@]}"; do
		plan_of "$boot" | sed -n 's|^step test/\([^ ]*\) .*|\1|p'
	done | sort -u
}

check_plans() {
	local file name planned missing=()
	planned=" $(planned_tests | paste -sd ' ') "
	for file in "$(dirname "$0")"/../kernel/test_*.c; do
		name=$(basename "$file" .c)
		name=${name#test_}
		[[ "$planned ${left_out[*]} " == *" $name "* ]] || missing+=("$name")
	done
	[[ ${#missing[@]} -eq 0 ]] || {
		echo "plans.sh: in no plan, and not left out: ${missing[*]}" >&2
		exit 1
	}
}

case ${1:-}:$# in
check:1) check_plans ;;
kernels:1) echo "${stock_kernels[*]}" ;;
specials:1) echo "${special_boots[*]}" ;;
title:2) describe_boot "$2" ;;
plan:2) plan_of "$2" ;;
quick:2) plan_quick "$2" ;;
*)
	echo "usage: plans.sh kernels | specials | title BOOT | plan BOOT | quick BOOT | check" >&2
	exit 2
	;;
esac
