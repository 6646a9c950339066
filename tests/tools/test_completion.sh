#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Completion in bash and zsh, by completing: what is offered for command lines of uffdwp-ctl and uffdwp-bench, and that
# each option that --help names is offered.
set -euo pipefail

: "${UFFDWP_SOURCE:?run by ctest}" "${UFFDWP_CTL:?}" "${UFFDWP_BENCH:?}"
if [[ ! -x $UFFDWP_CTL ]]; then
	echo "skipped: uffdwp-ctl was not built (UFFDWP_TOOLS?)"
	exit 77
fi
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-completion.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
mkdir folder
touch monday.img tuesday.raw wednesday.delta thursday.txt

# shellcheck source=tools/uffdwp-ctl/uffdwp-ctl.bash
. "$UFFDWP_SOURCE/tools/uffdwp-ctl/uffdwp-ctl.bash"
# shellcheck source=bench/uffdwp-bench.bash
. "$UFFDWP_SOURCE/bench/uffdwp-bench.bash"

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# What bash offers for the last of these words, sorted, in one line.
offered() {
	local name
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	name=$(complete -p "${1##*/}")
	name=${name#*-F }
	"${name%% *}" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
	printf '%s\n' "${COMPREPLY[@]}" | sort | paste -sd ' '
}

# expect OFFERS WORD...
expect() {
	local wanted=$1 got
	shift
	got=$(offered "$@")
	[[ $got == "$wanted" ]] || fail "bash: '$*': offered '$got', not '$wanted'"
}

# Long options of a --help.
options_of() {
	timeout 100 "$@" --help | sed -nE 's/^ {2,6}(-., )?(--[a-z-]+=?).*/\2/p' | sort | paste -sd ' '
}

live=(abort arm audit disarm list metrics snapshot stat trace watch)

complete_commands() {
	expect 'abort arm audit dirty disarm doctor fork image list metrics serve snapshot stat trace version watch' uffdwp-ctl ''
	expect 'dirty disarm doctor' uffdwp-ctl d
	expect '--help --usage --version' uffdwp-ctl --
	expect 'diff info merge restore verify' uffdwp-ctl image ''
	expect "$(options_of "${UFFDWP_CTL%/*}/uffdwp-dirty")" uffdwp-dirty --
	for command in doctor dirty fork image serve version "${live[@]}"; do
		expect "$(options_of "$UFFDWP_CTL" "$command")" uffdwp-ctl "$command" --
	done
}

complete_values() {
	expect 'always auto never' uffdwp-ctl doctor --color = ''
	expect 'always auto never' uffdwp-ctl doctor --color =
	expect 'always auto' uffdwp-ctl doctor -c a
	expect 'lines' uffdwp-ctl dirty --live = l
	expect 'lines' uffdwp-dirty --live = l
	expect 'inline thread' uffdwp-ctl fork --delivery ''
	expect 'jemalloc' uffdwp-ctl fork --malloc = j
	expect './monday.img' uffdwp-ctl fork --malloc = ./m
	expect 'thursday.txt' uffdwp-ctl dirty --output = th
	expect 'plain' uffdwp-ctl image verify --progress = p
	expect '1 10 11 12 13 14 15 16 17 18 19' uffdwp-ctl image merge -z 1
}

complete_images() {
	expect 'folder monday.img tuesday.raw wednesday.delta' uffdwp-ctl image verify ''
	expect 'tuesday.raw' uffdwp-ctl image diff monday.img t
	expect 'thursday.txt' uffdwp-ctl image info th # there is no image of such a name
	expect 'wednesday.delta' uffdwp-ctl image restore monday.img -o w
	expect 'wednesday.delta' uffdwp-ctl image info --ancestor = w
	expect 'wednesday.delta' uffdwp-ctl serve --image = w
}

complete_programs() {
	PATH=$scratch/folder:$PATH
	install -m 755 /dev/null folder/uffdwp_no_such_name
	expect 'uffdwp_no_such_name' uffdwp-ctl dirty -- uffdwp_no_
	expect 'uffdwp_no_such_name' uffdwp-ctl fork uffdwp_no_
	expect 'uffdwp_no_such_name' uffdwp-dirty -q -- uffdwp_no_
	expect 'uffdwp_no_such_name' uffdwp-ctl dirty -o thursday.txt --live = auto -q uffdwp_no_
	expect 'thursday.txt' uffdwp-ctl fork --check -- ls th
	expect '' uffdwp-ctl fork -- ls --ver # an option of ls, not of ours
}

complete_bench() {
	if [[ ! -x $UFFDWP_BENCH ]]; then
		echo "not tested here: completion of uffdwp-bench: it was not built"
		return
	fi
	expect 'disk faults fork gc handlers redis serve snapshot track' "$UFFDWP_BENCH" ''
	for question in disk faults fork gc handlers redis serve snapshot track; do
		expect "$(options_of "$UFFDWP_BENCH" "$question")" "$UFFDWP_BENCH" "$question" --
	done
	expect 'folder' "$UFFDWP_BENCH" disk --dir = f
}

# Processes and regions come from `list`, here from a program that stands for it. A shell splits words at colons.
complete_targets() {
	cat >folder/uffdwp-ctl <<-'END'
		#!/bin/sh
		[ "$*" = "list --targets" ] && printf '%s\n' 17:1 17:2 4711:1 4711:12 99
	END
	chmod +x folder/uffdwp-ctl
	expect '17:1 17:2 4711:1 4711:12 99' folder/uffdwp-ctl stat ''
	expect '17 4711 99' folder/uffdwp-ctl metrics ''
	expect '4711:1 4711:12' folder/uffdwp-ctl watch 47
	expect '1 12' folder/uffdwp-ctl trace 4711 : 1
	expect '1 12' folder/uffdwp-ctl trace --summary 4711 :
	expect '2' folder/uffdwp-ctl snapshot 17 : 2
	expect 'folder monday.img tuesday.raw wednesday.delta' folder/uffdwp-ctl snapshot 17 : 2 ''
	expect 'monday.img' folder/uffdwp-ctl snapshot 17 : 2 new.img --parent = m
	expect '' folder/uffdwp-ctl arm 17 : 2 ''
	expect 'auto move rounds' folder/uffdwp-ctl snapshot 17 : 2 --arming = ''
}

# In a terminal of its own zsh gets each line of standard input and <Tab>, and what the line became is printed.
in_zsh() {
	mkdir -p "$scratch/functions"
	cp "$UFFDWP_SOURCE/tools/uffdwp-ctl/_uffdwp-ctl" "$UFFDWP_SOURCE/bench/_uffdwp-bench" "$scratch/functions/"
	cat >"$scratch/setup" <<END
fpath=($scratch/functions \$fpath) path=(${UFFDWP_BENCH%/*} \$path) PS1=
autoload -Uz compinit
compinit -u -D
show() { print -r -- "<<\$BUFFER>>"; BUFFER=; }
zle -N show
bindkey '^I' complete-word '^X' show
print -r -- "<<""ready>>"
END
	# shellcheck disable=SC2016 # they are variables of zsh
	timeout 100 zsh -f -c '
		zmodload zsh/zpty
		zpty line TERM=dumb zsh -f -i
		zpty -w line "source $1"
		zpty -r line seen "*<<ready>>*" || exit 1
		while read -r words; do
			zpty -w -n line "$words"$'\''\t\x18'\''
			zpty -r line seen "*<<*>>*" || exit 1
			seen=${seen##*<<}
			print -r -- "$words|${seen%%>>*}|"
		done
		zpty -d line' zsh "$scratch/setup"
}

complete_in_zsh() {
	if ! command -v zsh >/dev/null; then
		echo "not tested here: completion in zsh, which is not installed"
		return
	fi
	cat >"$scratch/wanted" <<END
uffdwp-ctl im|uffdwp-ctl image |
uffdwp-ctl image ver|uffdwp-ctl image verify |
uffdwp-ctl image verify tu|uffdwp-ctl image verify tuesday.raw |
uffdwp-ctl image restore monday.img -o we|uffdwp-ctl image restore monday.img -o wednesday.delta |
uffdwp-ctl image info --anc|uffdwp-ctl image info --ancestor=|
uffdwp-ctl doctor --color=al|uffdwp-ctl doctor --color=always |
uffdwp-ctl dirty --li|uffdwp-ctl dirty --live=|
uffdwp-ctl dirty --live=li|uffdwp-ctl dirty --live=lines |
uffdwp-dirty --live=li|uffdwp-dirty --live=lines |
uffdwp-ctl fork --delivery=inl|uffdwp-ctl fork --delivery=inline |
uffdwp-ctl serve --image=we|uffdwp-ctl serve --image=wednesday.delta |
uffdwp-ctl fork --check -- cat thu|uffdwp-ctl fork --check -- cat thursday.txt |
uffdwp-ctl sna|uffdwp-ctl snapshot |
uffdwp-ctl snapshot --arming=ro|uffdwp-ctl snapshot --arming=rounds |
$scratch/folder/uffdwp-ctl stat 17|$scratch/folder/uffdwp-ctl stat 17:|
$scratch/folder/uffdwp-ctl snapshot 17:2 mon|$scratch/folder/uffdwp-ctl snapshot 17:2 monday.img |
END
	[[ ! -x $UFFDWP_BENCH ]] || cat >>"$scratch/wanted" <<END
uffdwp-bench fau|uffdwp-bench faults |
uffdwp-bench disk --di|uffdwp-bench disk --dir=|
uffdwp-bench disk --js|uffdwp-bench disk --json |
END
	cut -d '|' -f 1 "$scratch/wanted" | in_zsh >"$scratch/got" || fail "zsh did not answer: $(<"$scratch/got")"
	diff "$scratch/wanted" "$scratch/got" >&2 || fail "zsh"
	echo "completion: zsh completes $(wc -l <"$scratch/wanted") lines"
}

# Each option that --help names stands in the file for zsh, too.
look_into_zsh() {
	local command option
	for command in doctor dirty fork image serve "${live[@]}"; do
		for option in $(options_of "$UFFDWP_CTL" "$command"); do
			grep -qE "[{,')]${option}[}[]" <(sed -n "/^_uffdwp-ctl_$command()/,/^}/p; /^common=/,/^)/p" \
				"$UFFDWP_SOURCE/tools/uffdwp-ctl/_uffdwp-ctl") || fail "zsh: $command has no $option"
		done
	done
}

complete_commands
complete_values
complete_images
complete_programs
complete_targets
complete_bench
look_into_zsh
complete_in_zsh
echo "completion: bash offers what it should"
