#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Root asks all processes with a control socket, and another user has put into its own folder what is meant to deceive or to
# delay: files, links, sockets under the names of processes of others, processes that never answer. Each is named, root's own
# process is shown, and the command ends well and in time. In a mount namespace of its own.
set -euo pipefail

: "${UFFDWP_SOURCE:?run by ctest}" "${UFFDWP_CTL:?}"
python=${UFFDWP_PYTHON3:-/usr/bin/python3}
user=65534
skip() {
	echo "skipped: $*"
	exit 77
}
[[ -x $UFFDWP_CTL ]] || skip "uffdwp-ctl was not built (UFFDWP_TOOLS?)"
"$python" -c '' 2>/dev/null || skip "there is no $python"
[[ $(id -u) -eq 0 ]] || skip "another user is needed, and root"
if [[ ${1-} != inside ]]; then
	unshare -m true 2>/dev/null || skip "there is no mount namespace"
	exec unshare -m "$0" inside
fi

scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-hostile.XXXXXX")
# shellcheck source=tests/tools/begun.sh
. "$UFFDWP_SOURCE/tests/tools/begun.sh"
trap begin_over EXIT
cd "$scratch"
chmod 755 .
cp "$UFFDWP_SOURCE/tests/tools/control_stand_in.py" .
chmod 644 control_stand_in.py
mkdir run

# Sockets of other programs of this machine are not seen in here.
for folder in /run/uffdwp /run/user /tmp; do
	case $scratch/ in "$folder"/*) continue ;; esac
	case $UFFDWP_CTL in "$folder"/*) continue ;; esac
	[[ ! -d $folder ]] || mount -t tmpfs -o mode=1777 none "$folder"
done
folder=/tmp/uffdwp-$user
[[ ! -e $folder ]] || skip "$folder is there"
setpriv --reuid=$user --clear-groups "$python" control_stand_in.py </dev/null >/dev/null 2>&1 || [[ $? -eq 1 ]] || skip "no other user here"
export XDG_RUNTIME_DIR=$scratch/run LC_ALL=C.UTF-8

as_user() {
	setpriv --reuid=$user --clear-groups "$@"
}

# A process of that user with a socket of its own: by the name that the library gives it, in the other folder of users.
stand_in() {
	begin setpriv --reuid=$user --clear-groups "$python" control_stand_in.py "$scratch/others" "$@"
}

# It listens at sockets of any name.
listen_at() {
	begin setpriv --reuid=$user --clear-groups "$python" -c '
import os, socket, sys
sockets = [socket.socket(socket.AF_UNIX) for name in sys.argv[1:]]
for at, name in zip(sockets, sys.argv[1:]):
    at.bind(name)
    at.listen(16)
print(os.getpid(), flush=True)
sys.stdin.read()' "$@"
}

begin "$python" control_stand_in.py "$scratch/run"
honest=$pid
begin "$python" control_stand_in.py "$scratch/run" drops
dropped=$pid
as_user mkdir -m 700 "$folder"
mkdir others
ln -s "$folder" others/uffdwp

# names COMMAND CODE: ends so, and has shown root's own process.
ends() {
	local code=$1 status=0
	shift
	timeout 100 "$UFFDWP_CTL" "$@" >out 2>err || status=$?
	[[ $status -eq $code ]] || fail "$* ended with $status, expected $code: $(head -c 3000 err)"
}

says() {
	grep -qE -- "$1" err || fail "nothing says '$1': $(head -c 3000 err)"
}

plant() {
	stand_in
	neighbour=$pid
	ends 0 list
	grep -q "^ *$neighbour " out || fail "an honest process of another user is not listed: $(<out)"
	grep -q "^ *$dropped " out || fail "a process of root's that gave up its user is not listed: $(<out)"
	[[ ! -s err ]] || fail "honest processes: $(<err)"
	listen_at "$folder/1.sock" "$folder/$honest.sock" "$folder/$$.sock"
	deceiver=$pid
	as_user mkfifo "$folder/$deceiver.sock"
	for command in list metrics "list --json" stat "watch --count 1 --lines" "watch --count 1 --json"; do
		# shellcheck disable=SC2086 # a command and its options
		ends 0 $command
		says "/1.sock: process 1 is user 0's, and not user $user's: left out"
		says "/$honest.sock: process $honest is user 0's"
		says "/$$.sock: process $$ is user 0's"
		says "/$deceiver.sock: what has the name of a socket is none: left out"
		[[ $(wc -l <err) -eq 4 ]] || fail "$command says more: $(<err)"
		grep -q "\b$honest\b" out || fail "$command lost root's process: $(<out)"
		grep -q "\b$neighbour\b" out || fail "$command lost the honest process of the other user: $(<out)"
	done
	ends 0 stat "$honest"
	grep -q "^bank $honest, region 1" out || fail "stat: $(<out)"
	ends 3 stat 1
	says "process 1 .* has no control socket"
}

# A name of a process of that user, but another one listens; the same of a process that is gone; a link to root's own
# socket.
lead_astray() {
	rm "$folder"/*.sock
	begin setpriv --reuid=$user --clear-groups sh -c 'echo $$; read line'
	local sleeper=$pid
	as_user ln -s "$XDG_RUNTIME_DIR/uffdwp/$honest.sock" "$folder/$neighbour.sock"
	as_user true &
	local gone=$!
	wait "$gone" || true
	listen_at "$folder/$sleeper.sock" "$folder/$gone.sock"
	ends 0 list
	says "/$sleeper.sock: process $pid has its socket: it is not what its name says: left out"
	says "/$neighbour.sock: what has the name of a socket is none: left out"
	says "/$gone.sock: process $pid has its socket: it is not what its name says: left out"
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null || true
	ends 0 list
	[[ ! -e $folder/$gone.sock ]] || fail "the socket of a process that is gone was left"
	rm "$folder"/*.sock
	for name in {1..20}; do
		as_user mkdir "$folder/$name.sock"
	done
	ends 0 metrics
	says "left out 16 more of that kind"
	[[ $(wc -l <err) -eq 5 ]] || fail "a line for each: $(<err)"
	rmdir "$folder"/*.sock
}

# However many never answer, or never end: each other user has ten seconds in all. A process of root's own that does not
# answer is root's to know: the command ends as documented.
delay() {
	local begin=$SECONDS silent=() lie
	for lie in silent silent silent silent endless unfinished half; do
		stand_in $lie
		silent+=("$pid")
	done
	ends 0 metrics
	for pid in "${silent[@]}"; do
		says "process $pid \(.*\): (it|its) "
	done
	says "it is not asked: processes of user $user have taken the 10 s"
	grep -q "^uffdwp_up{pid=\"$honest\",program=\".*\"} 1" out || fail "metrics lost root's process: $(grep uffdwp_up out)"
	grep -q "^uffdwp_up{pid=\"${silent[0]}\",program=\".*\"} 0" out || fail "metrics: $(grep uffdwp_up out)"
	[[ $((SECONDS - begin)) -lt 90 ]] || fail "a command took $((SECONDS - begin)) s"
	ends 4 stat "${silent[0]}"
	says "it does not answer within 5 s"
	kill "${silent[@]}"
	begin "$python" control_stand_in.py "$scratch/run" hangup
	ends 4 list
	says "process $pid .*: it closed the connection"
}

plant
lead_astray
delay
echo "live: what another user put there was named, and cost the others nothing"
