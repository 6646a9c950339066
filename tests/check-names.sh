#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Static functions of the library, the tools and the examples carry the name of their module or file, so that perf, gdb and grep find
# them: in lib/fault/preserve.c a name begins with fault_ or preserve_; in kernel/trial_method.c with kernel_, trial_method_,
# trial_ or method_. It reads the text as .clang-format has it. usage: tests/check-names.sh [FILE]...
set -euo pipefail
cd "$(dirname "$0")/.."

files=("$@")
[[ ${#files[@]} -gt 0 ]] || mapfile -t files < <(find examples lib tools -name '*.[ch]' | sort)

awk '
	FNR == 1 {
		count = split(FILENAME, part, "/")
		stem = part[count]
		sub(/\.[ch]$/, "", stem)
		gsub(/-/, "_", stem)
		words = split(stem, word, "_")
		allowed = stem "|" word[1] "|" word[words]
		for (i = 2; i < count; i++) {
			gsub(/-/, "_", part[i])
			allowed = allowed "|" part[i]
		}
		files++
	}

	/^static / {
		text = $0
		place = FILENAME ":" FNR
		while (text !~ /[(=;{]/ && (getline line) > 0) # a long type stands on a line of its own
			text = text " " line
		gsub(/__attribute__ *\(\([^)]*\)\)/, "", text)
		gsub(/_(Atomic|Alignas)\([^)]*\)/, "type", text)
		if (text ~ /\(\*[a-zA-Z_0-9]+\(/) # it returns the pointer of a function
			sub(/\(\*/, " ", text)
		if (text !~ /^static [^=;{[]*[a-zA-Z_0-9]\(/)
			next
		name = text
		sub(/\(.*/, "", name)
		sub(/.*[ *]/, "", name)
		functions++
		if (name != "main" && name !~ "^(" allowed ")_") {
			print place ": " name "() carries neither the name of its file nor of its module"
			bad++
		}
	}

	END {
		if (!functions) {
			print "names: no static function was found: are the paths right?"
			exit 1
		}
		if (!bad)
			print "names: " functions " static functions in " files " files carry their file or module"
		exit bad > 0
	}' "${files[@]}"
