# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # scratch
# Processes that a script begins, and that end with it. Sourced: the script sets `scratch`, and calls begin_over at its end.

started=()

begin_over() {
	if [[ ${#started[@]} -gt 0 ]]; then
		kill -KILL "${started[@]}" 2>/dev/null || true
		wait "${started[@]}" 2>/dev/null || true
	fi
	rm -rf "$scratch"
}

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# begin COMMAND...: its first line is its pid; sets `pid`.
begin() {
	local name=in.${#started[@]}
	mkfifo "$name"
	"$@" <"$name" >"$name.pid" &
	pid=$!
	started+=("$pid")
	# shellcheck disable=SC2034 # it is open for as long as the script runs
	exec {input}>"$name"
	for _ in {1..1000}; do
		[[ ! -s $name.pid ]] || break
		sleep 0.1
	done
	[[ $(<"$name.pid") -eq $pid ]] || fail "$* does not begin"
}
