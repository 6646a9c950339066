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
	fork:--capacity | fork:--private | fork:--small | fork:--window) COMPREPLY=() ;;
	image:-[ao] | image:--ancestor | image:--output) _uffdwp_ctl_images ;;
	image:-z | image:--compress) _uffdwp_ctl_words "$(echo {1..19})" ;;
	image:-d | image:--deltas) COMPREPLY=() ;;
	image:--progress) _uffdwp_ctl_words 'auto never plain bar' ;;
	*) return 1 ;;
	esac
}

# Options of command $1, or of none.
_uffdwp_ctl_options() {
	case $1 in
	doctor) echo --color= --json ;;
	dirty) echo --interval= --json= --live= --output= --quiet --small-pages --svg= --exclude= ;;
	fork) echo --capacity= --check --delivery= --follow --from= --malloc= --private= --quiet --small= --verbose --window= ;;
	image) echo --ancestor= --buffered --deltas= --json --output= --progress= --raw --compress= ;;
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
	esac
}

_uffdwp_ctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} first=0
	COMPREPLY=()
	if [[ $COMP_CWORD -eq 1 ]]; then
		_uffdwp_ctl_words "dirty doctor fork image version $([[ $cur != -* ]] || _uffdwp_ctl_options none)"
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
