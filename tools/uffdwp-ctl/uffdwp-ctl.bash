# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# Completion of uffdwp-ctl and uffdwp-dirty for bash. It needs nothing but bash; where the package bash-completion is loaded, the program
# that `dirty` and `fork` run is completed as by its own rules.

# The words that `cur` may become.
_uffdwp_ctl_words() {
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

_uffdwp_ctl_files() {
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}

# Images and folders; all files where there are none.
_uffdwp_ctl_images() {
	local path
	_uffdwp_ctl_files
	local all=("${COMPREPLY[@]}")
	COMPREPLY=()
	for path in "${all[@]}"; do
		case $path in
		*.img | *.raw | *.delta) COMPREPLY+=("$path") ;;
		*) [[ ! -d $path ]] || COMPREPLY+=("$path") ;;
		esac
	done
	[[ ${#COMPREPLY[@]} -gt 0 ]] || COMPREPLY=("${all[@]}")
}

# PID or PID:REGION of live processes, with regions if $1 is 1. Bash takes a colon for the end of a word, so what stands
# before the last one in the word is left out of what is offered.
_uffdwp_ctl_targets() {
	local word=$cur list before i
	for ((i = COMP_CWORD; i > 1; i--)); do # the words that one with colons was split into
		[[ ${COMP_WORDS[i]} == : || ${COMP_WORDS[i - 1]} == : ]] || break
		[[ $i -eq $COMP_CWORD ]] || word=${COMP_WORDS[i]}$word
	done
	[[ $i -eq $COMP_CWORD ]] || word=${COMP_WORDS[i]}$word
	list=$("${COMP_WORDS[0]}" list --targets 2>/dev/null)
	[[ $1 -eq 1 ]] || list=$(cut -d : -f 1 <<<"$list" | sort -u)
	mapfile -t COMPREPLY < <(compgen -W "$list" -- "$word")
	if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
		before=${word%:*}:
		COMPREPLY=("${COMPREPLY[@]#"$before"}")
	fi
}

# The value of option $2 of command $1; 1: it takes none.
_uffdwp_ctl_value() {
	case $1:$2 in
	doctor:-c | doctor:--color) _uffdwp_ctl_words 'auto never always' ;;
	dirty:-i | dirty:--interval) _uffdwp_ctl_words '10ms 100ms 1s 10s' ;;
	dirty:-[ojs] | dirty:--output | dirty:--json | dirty:--svg) _uffdwp_ctl_files ;;
	dirty:-x | dirty:--exclude) _uffdwp_ctl_words 'heap stack anon shared data' ;;
	dirty:--live) _uffdwp_ctl_words 'auto lines never' ;;
	fork:--malloc)
		_uffdwp_ctl_words 'auto jemalloc mimalloc tcmalloc none'
		[[ $cur != */* ]] || _uffdwp_ctl_files
		;;
	fork:--delivery) _uffdwp_ctl_words 'thread inline' ;;
	fork:--from) _uffdwp_ctl_words 'auto program all' ;;
	fork:--capacity | fork:--nice | fork:--private | fork:--small | fork:--window) COMPREPLY=() ;;
	image:-[ao] | image:--ancestor | image:--output) _uffdwp_ctl_images ;;
	image:-z | image:--compress) _uffdwp_ctl_words "$(echo {1..19})" ;;
	image:-d | image:--deltas) COMPREPLY=() ;;
	image:--progress) _uffdwp_ctl_words 'auto never plain bar' ;;
	snapshot:--parent) _uffdwp_ctl_images ;;
	snapshot:-z | snapshot:--compress) _uffdwp_ctl_words "$(echo {1..19})" ;;
	snapshot:--rate) _uffdwp_ctl_words '10M 100M 1G' ;;
	snapshot:--pool) _uffdwp_ctl_words '64M 256M 1G' ;;
	snapshot:--arming) _uffdwp_ctl_words 'auto rounds move' ;;
	snapshot:--mode) _uffdwp_ctl_words '600 640 644' ;;
	watch:-i | watch:--interval) _uffdwp_ctl_words '100ms 1s 10s' ;;
	watch:-n | watch:--count | trace:--per-second | trace:--seconds) COMPREPLY=() ;;
	abort:--socket | arm:--socket | audit:--socket | disarm:--socket | list:--socket | metrics:--socket | snapshot:--socket | \
		stat:--socket | trace:--socket | watch:--socket) _uffdwp_ctl_files ;;
	serve:--image) _uffdwp_ctl_images ;;
	serve:--images | serve:--snapshots | serve:--socket | serve:--order | serve:--record) _uffdwp_ctl_files ;;
	serve:--memory-max | serve:--clients-max | serve:--pool | serve:--threads | serve:--handshake | serve:--stop) COMPREPLY=() ;;
	*) return 1 ;;
	esac
}

# Options of command $1, or of none.
_uffdwp_ctl_options() {
	case $1 in
	doctor) echo --color= --json ;;
	dirty) echo --interval= --json= --live= --output= --quiet --small-pages --svg= --exclude= ;;
	fork) echo --capacity= --check --delivery= --follow --from= --malloc= --nice= --private= --quiet --small= --verbose --window= ;;
	image) echo --ancestor= --buffered --deltas= --json --output= --progress= --raw --compress= ;;
	abort | arm | audit | disarm | stat) echo --json --socket= ;;
	list) echo --json --socket= --targets ;;
	metrics) echo --socket= ;;
	snapshot) echo --arming= --compress= --json --keep --mode= --no-wait --parent= --pool= --rate= --socket= --wait ;;
	trace) echo --json --per-second= --seconds= --socket= --summary ;;
	watch) echo --count= --interval= --json --lines --socket= ;;
	serve) echo --clients-max= --handshake= --image= --images= --memory-max= --no-order --order= --pool= --quiet --record= --snapshots= --socket= \
		--spare --stop= --threads= ;;
	esac
	echo --help --usage --version
}

# Where in COMP_WORDS the first word from the third on stands that is neither an option of command $1 nor its value.
_uffdwp_ctl_first() {
	local options option
	options=" $(_uffdwp_ctl_options "$1") "
	for (( first = 2; first < COMP_CWORD; first++)); do
		option=${COMP_WORDS[first]}
		if [[ $option == -- ]]; then
			first=$((first + 1))
			break
		fi
		[[ $option == -?* ]] || break
		if [[ ${COMP_WORDS[first + 1]} == '=' ]]; then # --option=value is three words
			first=$((first + 2))
		elif [[ $options == *" $option= "* || $1:$option == dirty:-[iojsx] ]]; then
			first=$((first + 1))
		fi
	done
}

# The program of `dirty` and `fork`, and its arguments.
_uffdwp_ctl_program() {
	if declare -F _command_offset >/dev/null; then
		_command_offset "$first"
	elif [[ $COMP_CWORD -eq $first ]]; then
		mapfile -t COMPREPLY < <(compgen -c -- "$cur")
	else
		_uffdwp_ctl_files
	fi
}

# What is no option: a subcommand, images, a program.
_uffdwp_ctl_argument() {
	case $1 in
	image)
		if [[ $COMP_CWORD -eq 2 ]]; then
			_uffdwp_ctl_words 'info verify merge restore diff'
		else
			_uffdwp_ctl_images
		fi
		;;
	dirty | fork) _uffdwp_ctl_program ;;
	metrics) _uffdwp_ctl_targets 0 ;;
	snapshot)
		if _uffdwp_ctl_has_target; then
			_uffdwp_ctl_images
		else
			_uffdwp_ctl_targets 1
		fi
		;;
	abort | arm | audit | disarm | stat | trace | watch) _uffdwp_ctl_has_target || _uffdwp_ctl_targets 1 ;;
	esac
}

# A word before this one is PID:REGION.
_uffdwp_ctl_has_target() {
	local i
	for ((i = 2; i + 2 < COMP_CWORD; i++)); do
		[[ ! ${COMP_WORDS[i]} =~ ^[0-9]+$ || ${COMP_WORDS[i + 1]} != : ]] || return 0
	done
	for ((i = 2; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} != *[0-9]:[0-9]* ]] || return 0
	done
	return 1
}

_uffdwp_ctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} first=0
	COMPREPLY=()
	if [[ $COMP_CWORD -eq 1 ]]; then
		_uffdwp_ctl_words "abort arm audit dirty disarm doctor fork image list metrics serve snapshot stat trace version watch $([[ $cur != -* ]] || _uffdwp_ctl_options none)"
		return
	fi
	if [[ $command == dirty || $command == fork ]]; then
		_uffdwp_ctl_first "$command"
		if [[ $COMP_CWORD -ge $first && ($COMP_CWORD -gt $first || ${COMP_WORDS[first - 1]} == -- || $cur != -*) ]]; then
			_uffdwp_ctl_program
			return
		fi
	fi
	if [[ $cur == '=' ]]; then
		cur=
	elif [[ $option == '=' ]]; then
		option=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	_uffdwp_ctl_value "$command" "$option" && return
	if [[ $cur == -* ]]; then
		_uffdwp_ctl_words "$(_uffdwp_ctl_options "$command")"
		[[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null
	else
		_uffdwp_ctl_argument "$command"
	fi
}

# uffdwp-dirty is completed as `uffdwp-ctl dirty`.
_uffdwp_dirty() {
	local name=${COMP_WORDS[0]} ctl='uffdwp-ctl dirty'
	COMP_WORDS=(uffdwp-ctl dirty "${COMP_WORDS[@]:1}")
	COMP_CWORD=$((COMP_CWORD + 1))
	COMP_LINE=${COMP_LINE-} # the package bash-completion reads these two
	COMP_LINE=${COMP_LINE/"$name"/$ctl}
	COMP_POINT=$((${COMP_POINT-0} + ${#ctl} - ${#name}))
	_uffdwp_ctl
}

complete -F _uffdwp_ctl uffdwp-ctl
complete -F _uffdwp_dirty uffdwp-dirty
