# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# Completion of uffdwp-bench for bash: questions and options are those that the program itself prints.

_uffdwp_bench() {
	local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} words=
	COMPREPLY=()
	if [[ $COMP_CWORD -eq 1 ]]; then
		words=$("$1" --help 2>/dev/null | sed -nE '/^Questions:/,/^$/s/^  ([a-z]+) .*/\1/p')
	elif [[ $cur == -* ]]; then
		words=$("$1" "${COMP_WORDS[1]}" --help 2>/dev/null | sed -nE 's/^ {2,6}(-., )?(--[a-z-]+=?).*/\2/p')
	elif [[ $option == = || $cur == = || $option == -? ]]; then # --option=value is three words
		cur=${cur#=}
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	[[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null
}

complete -F _uffdwp_bench uffdwp-bench
