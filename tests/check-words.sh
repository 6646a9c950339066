#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# One word for each thing, and the field's: what stands in `words` is said otherwise, in comments, texts, documents and
# names of the library, its tools, examples, tests and benchmarks. A sentence names the thread or the program that acts. A
# phrase is found across the end of a line, too. Prints FILE:LINE, the words that were found, and what to say instead.
# usage: tests/check-words.sh [FILE]...
set -euo pipefail
cd "$(dirname "$0")/.."

# words (a pattern of awk over lower-case words with one blank between: [a-z0-9] only), and what to say
words='
(un)?mark(s|ed|ing)?                                 wp bit, protected; of a descriptor: tag
let(s|ting)?( [a-z0-9]+)?( [a-z0-9]+)? go(es)?       unprotect (a page), release (a resource), resume (a thread)
hold(s|ing)?( the| its| all| new)? (faults|writers)  stall faults
holdings? of faults                                  a stall of faults
(faults?|writers?|access(es)?) (is|are|was|were|be|being|been) held   stalled
(fault|phase) h(e|o)ld                               FAULT_STALLED, PHASE_STALL
held (most )?ns                                      stalled_ns
(to|can|could|cannot|not) be had                     is available, is not available
told|tells?|telling|unheard                          reported, reports, unreported; to tell one from another: distinguish
wish(es|ed)?                                         best effort, errors ignored; a request
patient(ly)?|patience                                with retry; a time limit
nap(s|ped|ping)?                                     sleep
errands?                                             context
books?                                               log, table
ways?                                                method, access, means
grain(s|ed)?                                         granularity
null is nothing                                      NULL is ignored
was first wins                                       the thread whose compare-and-swap succeeds
behind                                               after, beyond
who|whoever|whom                                     name the thread or the program
nobody|somebody|anybody|everybody                    no thread, a thread, all threads
he|him|his|himself                                   name the thread or the program
'

# Where such a word is right: a pattern of files, the words, and the reason.
allowed='
^(bench|tests|tools)/.*(gc|bdwgc|bars.txt)           ^(un)?mark           a garbage collector marks objects
^bench/README.md                                     ^mark                the same, in the section about the collector
^tests/run.sh                                        ^he$                 an option of grep
^tests/.*\.c$                                        ^nobody$             the user of that name
^tests/vm/world.sh                                   ^nobody$             the same
'

if [[ $# -gt 0 ]]; then
	files=("$@")
else
	mapfile -t files < <(find .ci .github bench debian examples include lib tests tools -type f \( -name '*.[ch]' -o -name '*.cpp' \
		-o -name '*.md' -o -name '*.py' -o -name '*.sh' -o -name '*.txt' -o -name '*.map' -o -name '*.in' -o -path '.ci/*' \
		-o -path 'debian/*' -o -path 'tests/vm/guest/*' -o -name '*.[137]' -o -name '*.awk' -o -name '*.bash' \
		-o -name '_uffdwp-*' \) ! -name check-words.sh ! -path debian/copyright ! -path 'debian/*/*/*' | sort)
	files+=(README.md NEWS.md CMakeLists.txt)
fi

WORDS=$words ALLOWED=$allowed awk '
	function load(    lines, count, i, field) {
		count = split(ENVIRON["WORDS"], lines, "\n")
		for (i = 1; i <= count; i++) {
			if (lines[i] !~ /[^ ]/)
				continue
			split(lines[i], field, /   +/)
			pattern[++rules] = " (" field[1] ") "
			instead[rules] = field[2]
			all = all (rules > 1 ? "|" : "") field[1]
		}
		count = split(ENVIRON["ALLOWED"], lines, "\n")
		for (i = 1; i <= count; i++) {
			if (lines[i] !~ /[^ ]/)
				continue
			split(lines[i], field, /   +/)
			where[++exceptions] = field[1]
			what[exceptions] = field[2]
		}
		all = " (" all ") "
	}

	# the words of a line, a blank before and after each; the sign of a comment that goes on is none
	function plain(line) {
		line = tolower(line)
		gsub(/under way/, "underway", line)
		gsub(/[^a-z0-9]+/, " ", line)
		sub(/^ /, "", line)
		sub(/ $/, "", line)
		return line
	}

	function is_allowed(found,    i) {
		for (i = 1; i <= exceptions; i++) {
			if (FILENAME ~ where[i] && found ~ what[i])
				return 1
		}
		return 0
	}

	function report(text, limit,    i, found, from, rest) {
		for (i = 1; i <= rules; i++) {
			rest = text
			from = 0
			while (match(rest, pattern[i])) {
				found = substr(rest, RSTART + 1, RLENGTH - 2)
				# what ends within the words of the line before was reported there
				if (from + RSTART + RLENGTH - 1 > limit && !is_allowed(found)) {
					print FILENAME ":" FNR ": \"" found "\": " instead[i]
					bad++
				}
				from += RSTART + RLENGTH - 2
				rest = substr(rest, RSTART + RLENGTH - 1)
			}
		}
	}

	BEGIN { load() }
	FNR == 1 {
		before = ""
		count_files++
	}
	{
		line = plain($0)
		text = " " before (before == "" ? "" : " ") line " "
		if (text ~ all)
			report(text, length(before) + 2)
		before = line
		n = split(line, parts, " ")
		if (n > 4)
			before = parts[n - 3] " " parts[n - 2] " " parts[n - 1] " " parts[n]
		if ($0 ~ /^[[:space:]]*$/)
			before = ""
	}
	# A sentence does not begin with its genitive.
	/(\/\*|\* |# |[.:;] |^)Of (a|an|the|some|all|what|shmem|shared|private|[a-z]+) / && $0 !~ /printf|"/ {
		if (match($0, /(\/\* ?|[.] |^ \* )Of [a-z]+/)) {
			print FILENAME ":" FNR ": a sentence that begins with \"Of\": name its subject"
			bad++
		}
	}
	END {
		if (!bad)
			print "words: " count_files " files use the words of the field"
		exit bad > 0
	}' "${files[@]}"
