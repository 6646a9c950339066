#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Command lines that are not understood: each command of uffdwp-ctl names the word that is wrong, or what is missing, says where help
# is, prints nothing on standard output and ends with the documented code.
set -euo pipefail

: "${UFFDWP_CTL:?run by ctest}"
if [[ ! -x $UFFDWP_CTL ]]; then
	echo "skipped: uffdwp-ctl was not built (UFFDWP_TOOLS?)"
	exit 77
fi
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-usage.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
export LC_ALL=C.UTF-8

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# refused PATTERN COMMAND...: not understood, and says so.
refused() {
	local pattern=$1 code=2 status=0
	shift
	case ${1-} in dirty | fork) code=125 ;; esac
	timeout 100 "$UFFDWP_CTL" "$@" >out 2>err </dev/null || status=$?
	[[ $status -eq $code ]] || fail "$* ended with $status, expected $code: $(<err)"
	grep -qE -- "$pattern" err || fail "$* does not say '$pattern': $(<err)"
	grep -qE "^Try .*--help" err || fail "$* does not say where help is: $(<err)"
	[[ ! -s out ]] || fail "$* printed: $(<out)"
}

"$UFFDWP_CTL" 2>err || true
commands=$(sed -nE 's/^.*a command is missing: //; s/ and |, / /gp' err)
[[ $(wc -w <<<"$commands") -ge 16 ]] || fail "the commands: $commands"
refused 'a command is missing: abort, arm'
refused "unknown command 'frobnicate'" frobnicate
refused "unrecognized option '--frobnicate'" --frobnicate
for command in $commands; do
	refused "unrecognized option '--frobnicate'" "$command" --frobnicate
	refused "invalid option -- '%'" "$command" -%
done
for command in doctor list serve version; do
	refused "'extra'" "$command" extra
done
for command in abort audit stat watch trace; do
	refused "'extra' is one argument too many" "$command" 1:1 extra
done
refused "'extra' is one argument too many" metrics 1 extra
refused "'extra' is one argument too many" snapshot 1:1 x.img extra
for command in arm disarm; do
	refused "'extra' is one argument too many" "$command" 1:1 0 4096 extra
	refused "LENGTH is missing" "$command" 1:1 0
done
for command in abort arm audit disarm snapshot; do
	refused "PID:REGION is missing" "$command"
	refused "'1' is no PID:REGION" "$command" 1
done
refused "PID is missing" trace
refused "where the image goes is missing" snapshot 1:1
refused "--parent takes the name of an image, not ''" snapshot 1:1 x.img --parent=
for command in abort arm audit disarm list metrics snapshot stat trace watch; do
	refused "--socket takes the path of a socket, not ''" "$command" --socket=
	refused "option '--socket' requires an argument" "$command" --socket
done
refused "--json.* doesn't allow an argument" stat --json=yes
for command in dirty fork; do
	refused "a program is missing" "$command"
done
refused "where to listen is missing" serve
refused "a subcommand is missing" image
refused "'frobnicate' is no subcommand" image frobnicate
refused "'base' is one image too many" image verify delta base
echo "usage: what was not understood is named"
