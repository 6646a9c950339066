# SPDX-License-Identifier: MIT
# Writes a manual page of section 3 for each function that header.awk has read. A page is made of the function's text and of
# all that its arguments are made of: structures, the enumerations and flags that their members name, callbacks.
#
# How a text becomes a page, sentence by sentence:
#
#   the first one, up to a point, a colon or a semicolon      also the line of NAME
#   "Returns ..."                                             RETURN VALUE
#   "Errors ...: -EINVAL (why), ...", "-EBUSY (why)."         ERRORS, an item each
#   "Async-signal-safe ...", "Any thread."                    NOTES
#   "Since 0.1."                                              HISTORY
#   all else                                                  DESCRIPTION
#
# usage: awk -f header.awk -f page.awk -v folder=OUT -v date=2026-11-30 include/uffdwp/*.h

# ---------------------------------------------------------------------------------------------------------------- roff --

function plain(text) {
	gsub(/\\/, "\\e", text)
	gsub(/\^/, "\\(ha", text)
	gsub(/~/, "\\(ti", text)
	if (text ~ /^-/)
		text = "\\" text
	gsub(/ -/, " \\-", text)
	gsub(/\(-/, "(\\-", text)
	gsub(/\/-/, "/\\-", text)
	return text
}

# Of code each hyphen is a minus sign, and each apostrophe is one of ASCII.
function verbatim(text) {
	gsub(/\\/, "\\e", text)
	gsub(/-/, "\\-", text)
	gsub(/'/, "\\(aq", text)
	gsub(/\^/, "\\(ha", text)
	gsub(/~/, "\\(ti", text)
	return text
}

function bold(text) { return "\\fB" text "\\fR" }
function italic(text) { return "\\fI" text "\\fR" }

# A word that the manuals set in a face of its own.
function face(word,    name) {
	if (word ~ /^`/)
		return italic(verbatim(substr(word, 2, length(word) - 2)))
	if (word ~ /^-E/)
		return bold("\\" word)
	if (word ~ /^(struct|enum) /)
		return italic(word)
	if (word ~ /\(\)$/) {
		name = substr(word, 1, length(word) - 2)
		return bold(name) (name in function_number ? "(3)" : "()")
	}
	if (word ~ /\([1-8]\)$/)
		return bold(verbatim(substr(word, 1, length(word) - 3))) substr(word, length(word) - 2)
	return bold(word)
}

function styled(text,    done) {
	done = ""
	gsub(/at the top of uffdwp\.h/, "in uffdwp-caveats(7)", text)
	gsub(/the top of uffdwp\.h/, "uffdwp-caveats(7)", text)
	while (match(text, /`[^`]+`|-E[A-Z0-9]+|(struct|enum) uffdwp[a-z_]*|[a-z_0-9]+\(\)|[a-z_0-9-]+\([1-8]\)|UFFDWP_[A-Z0-9_]*\*?/)) {
		done = done plain(substr(text, 1, RSTART - 1)) face(substr(text, RSTART, RLENGTH))
		text = substr(text, RSTART + RLENGTH)
	}
	return done plain(text)
}

# Elements that are not there are not passed on: gawk 5.2.1 takes them for arrays later.
function text_of(name) {
	return name in doc ? doc[name] : ""
}

function text_of_field(name, i) {
	return (name, i) in field_text ? field_text[name, i] : ""
}

function put(line) {
	print line > page
	last = line
}

# A paragraph begins, but not right after a heading.
function put_break() {
	if (last !~ /^\.(S[HS]|PP)/)
		put(".PP")
}

# Text at the beginning of a line must not be taken for a request.
function put_text(text) {
	text = styled(text)
	put((text ~ /^[.']/ ? "\\&" : "") text)
}

function put_code(text,    lines, count, i) {
	put_break()
	put(".in +4n")
	put(".EX")
	count = split(text, lines, "\n")
	for (i = 1; i <= count; i++)
		put((lines[i] ~ /^[.']/ ? "\\&" : "") verbatim(lines[i]))
	put(".EE")
	put(".in")
}

# ----------------------------------------------------------------------------------------------------------- sentences --

# How much deeper in brackets a text is after this character.
function bracket(c) { return c == "(" || c == "[" ? 1 : c == ")" || c == "]" ? -1 : 0 }

# Splits a paragraph into sentence[1..]: at points outside of brackets, [start, end) included. Returns their number.
function sentences_split(text,    count, depth, i, c, from, rest) {
	count = depth = 0
	from = 1
	for (i = 1; i <= length(text); i++) {
		c = substr(text, i, 1)
		depth += bracket(c)
		rest = substr(text, i + 1)
		if (depth == 0 && (c == "." || (c == ")" && substr(text, i - 1, 1) == ".")) && rest ~ /^ +[A-Z0-9`(-]/) {
			sentence[++count] = substr(text, from, i - from + 1)
			sub(/^ +/, "", rest)
			from = length(text) - length(rest) + 1
		}
	}
	if (from <= length(text))
		sentence[++count] = substr(text, from)
	return count
}

# Paragraphs of a text into paragraph[1..]; code, which is indented, keeps its lines and stands in is_code[].
function paragraphs_split(text,    lines, count, i, n, open) {
	count = split(text, lines, "\n")
	n = open = 0
	for (i = 1; i <= count; i++) {
		if (lines[i] ~ /^[ \t]*$/) {
			open = 0
		} else if (open) {
			paragraph[n] = paragraph[n] (is_code[n] ? "\n" : " ") (is_code[n] ? substr(lines[i], 5) : lines[i])
		} else {
			open = 1
			is_code[++n] = lines[i] ~ /^    /
			paragraph[n] = is_code[n] ? substr(lines[i], 5) : lines[i]
		}
	}
	return n
}

function joined(text) {
	gsub(/\n/, " ", text)
	gsub(/  +/, " ", text)
	return text
}

# A short text as a sentence: it stands beside code in the header, and begins small there.
function polished(text,    word) {
	if (match(text, /^[a-z]+([ ,;:]|$)/)) {
		word = substr(text, 1, RLENGTH)
		sub(/[ ,;:]$/, "", word)
		if (word !~ /^(async|capacity|enum|fd|hugetlb|io_uring|mprotect|length|out|path|progress|ranges|shmem|soft|struct|sz)$/)
			text = toupper(substr(text, 1, 1)) substr(text, 2)
	}
	return text == "" || text ~ /[.]\)?$/ ? text : text "."
}

# The line of NAME.
function summary(text,    i, c, depth, line) {
	line = joined(text)
	depth = 0
	for (i = 1; i <= length(line); i++) {
		c = substr(line, i, 1)
		depth += bracket(c)
		if (depth == 0 && c ~ /[.:;]/ && substr(line, i + 1) ~ /^( |$)/)
			break
	}
	line = substr(line, 1, i - 1)
	gsub(/`/, "", line)
	if (line !~ /^[A-Z][A-Z]/)
		line = tolower(substr(line, 1, 1)) substr(line, 2)
	gsub(/\\/, "\\e", line)
	gsub(/-/, "\\-", line)
	return line
}

# ---------------------------------------------------------------------------------------------------------- the page --

# Takes the function's text apart: description[], returned, errors[], noted, since.
function sort_sentences(text,    n, i, j, k, what, body) {
	described = errors = 0
	returned = noted = since = ""
	n = paragraphs_split(text)
	for (i = 1; i <= n; i++) {
		if (is_code[i]) {
			description[++described] = paragraph[i]
			description_is_code[described] = 1
			continue
		}
		body = ""
		k = sentences_split(paragraph[i])
		for (j = 1; j <= k; j++) {
			what = sentence[j]
			if (what ~ /^Since [0-9.]+$/)
				since = substr(what, 7, length(what) - 7)
			else if (what ~ /^Errors?[ ,:]/ || what ~ /^-E[A-Z]/)
				error_text[++errors] = what
			else if (what ~ /^Returns /)
				returned = returned (returned == "" ? "" : "\n") what
			else if (what ~ /^Async-signal-safe/)
				noted = what
			else if (what !~ /^Any thread\.$/)
				body = body (body == "" ? "" : "\n") what
		}
		if (body != "") {
			description[++described] = body
			description_is_code[described] = 0
		}
	}
}

function put_sentences(text,    list, count, i) {
	count = split(text, list, "\n")
	for (i = 1; i <= count; i++)
		put_text(list[i])
}

# A text as it is, all of it.
function put_prose(text,    n, i, j, k) {
	n = paragraphs_split(text)
	for (i = 1; i <= n; i++) {
		if (is_code[i]) {
			put_code(paragraph[i])
			continue
		}
		if (i > 1)
			put_break()
		k = sentences_split(joined(paragraph[i]))
		for (j = 1; j <= k; j++)
			put_text(sentence[j])
	}
}

# Parameters are in italics; a line each where one line does not do.
function put_prototype(line,    list, count, i, name, type, ending, is_long, out) {
	is_long = length(line) > 76
	out = ".BI \""
	count = split(substr(line, index(line, "(") + 1), list, /, */)
	out = out substr(line, 1, index(line, "("))
	for (i = 1; i <= count; i++) {
		sub(/\)$/, "", list[i])
		ending = i == count ? ");" : is_long ? "," : ", "
		name = list[i]
		sub(/.*[ *]/, "", name)
		type = substr(list[i], 1, length(list[i]) - length(name))
		if (name == "void") {
			put(".B " substr(out, 5) "void);\"")
			return
		}
		if (i > 1 && is_long)
			out = ".BI \"        "
		out = out type "\" " name " \"" ending
		if (i == count || is_long)
			put(out "\"")
	}
}

function put_synopsis(name) {
	put(".SH LIBRARY")
	put("Userfaultfd write protection")
	put(".RI ( libuffdwp ,")
	put(".IR \\-luffdwp )")
	put(".SH SYNOPSIS")
	put(".nf")
	put(".B #include <uffdwp.h>")
	put(".PP")
	put_prototype(prototype[name])
	put(".fi")
}

function put_description(name,    i) {
	put(".SH DESCRIPTION")
	for (i = 1; i <= described; i++) {
		if (description_is_code[i]) {
			put_code(description[i])
			continue
		}
		if (i > 1)
			put_break()
		put_sentences(description[i])
	}
	for (i = essay_first[name]; i <= essay_last[name]; i++) {
		put(".SS " essay_heading(i))
		put_prose(essay_text[i])
	}
}

function essay_heading(i,    title) {
	title = essay_title[i]
	if (title == "" && match(essay_text[i], /^`[a-z_]+`/))
		title = substr(essay_text[i], 2, RLENGTH - 2)
	return title == "" ? "More" : title
}

# ----------------------------------------------------------------------------------------- what a page has to explain --

function want(kind, name) {
	if ((kind, name) in wanted)
		return
	wanted[kind, name] = ++wants
	want_kind[wants] = kind
	want_name[wants] = name
	kinds[kind] = 1
}

# Types, enumerations, flags and numbers that a text names.
function want_named(text, deeply,    word) {
	while (match(text, /(struct|enum) uffdwp[a-z_]*|uffdwp_[a-z_]+_fn|UFFDWP_[A-Z0-9_]+\*?/)) {
		word = substr(text, RSTART, RLENGTH)
		text = substr(text, RSTART + RLENGTH)
		if (word ~ /^struct / && deeply && substr(word, 8) in is_struct)
			want("struct", substr(word, 8))
		else if (word ~ /^enum / && substr(word, 6) in is_enum)
			want("enum", substr(word, 6))
		else if (word in callback)
			want("callback", word)
		else if (word ~ /_\*$/)
			want("flags", substr(word, 1, length(word) - 1))
		else if (word in macro_value && macro_value[word] ~ /^[0-9]+$/)
			want("number", word)
	}
}

function want_all(name,    i, j) {
	split("", wanted)
	split("", kinds)
	wants = 0
	want_named(prototype[name], 1)
	want_named(joined(text_of(name)), 0)
	for (i = essay_first[name]; i <= essay_last[name]; i++)
		if (essay_title[i] in macro_value)
			want("number", essay_title[i])
	for (i = 1; i <= wants; i++) { # grows meanwhile
		if (want_kind[i] == "struct")
			for (j = 1; j <= fields[want_name[i]]; j++)
				want_named(field[want_name[i], j] " " joined(text_of_field(want_name[i], j)), 1)
		else if (want_kind[i] == "callback")
			want_named(callback[want_name[i]], 1)
	}
	want_own_flags(toupper(name) "_")
}

# Flags of this call that no member names: those of an argument.
function want_own_flags(call,    i) {
	for (i = 1; i <= wants; i++)
		if (want_kind[i] == "flags" && index(call, want_name[i]) == 1)
			return
	for (i = 1; i <= macros; i++)
		if (index(macro_name[i], call) == 1 && macro_value[macro_name[i]] ~ /<</)
			want("flags", call)
}

function field_name(text) {
	if (match(text, /\(\*[a-z_]+\)/))
		return substr(text, RSTART + 2, RLENGTH - 3)
	sub(/\[.*/, "", text)
	sub(/.*[ *]/, "", text)
	return text
}

function put_struct_code(name,    i, text) {
	text = "struct " name " {\n"
	for (i = 1; i <= fields[name]; i++)
		text = text "    " field[name, i] ";\n"
	put_code(text "};")
}

# Members that share a text stand before it, a line each.
function put_fields(name,    i, text) {
	for (i = 1; i <= fields[name]; i++) {
		text = text_of_field(name, i)
		if ((name, i) in field_heading) {
			put_break()
			put_text(joined(field_heading[name, i]))
		}
		if (text == "" || field_name(field[name, i]) == "reserved")
			continue
		put(".TP")
		put(".I " field_name(field[name, i]))
		for (; text_of_field(name, i + 1) == "+"; i++) {
			put(".TQ")
			put(".I " field_name(field[name, i + 1]))
		}
		put_prose(polished(text))
	}
}

function put_struct(name) {
	put(".SS struct " name)
	if (text_of("struct " name) != "")
		put_prose(text_of("struct " name))
	put_struct_code(name)
	put_fields(name)
	if ("(struct " name ")" in initial) {
		put(".PP")
		put_text(initial["(struct " name ")"] " sets `sz`, and leaves 0 in all else, which is the default of each member.")
	} else if (field[name, 1] == "size_t sz") {
		put(".PP")
		put_text("UFFDWP_INIT(struct " name ") sets `sz`; no more of the structure than that is filled.")
	}
}

function put_structs(    i) {
	if (!("struct" in kinds))
		return
	put(".SH STRUCTURES")
	for (i = 1; i <= wants; i++)
		if (want_kind[i] == "struct")
			put_struct(want_name[i])
}

function put_callbacks(    i) {
	if (!("callback" in kinds))
		return
	put(".SH CALLBACKS")
	for (i = 1; i <= wants; i++) {
		if (want_kind[i] != "callback")
			continue
		put(".SS " want_name[i])
		put_code(callback[want_name[i]] ";")
		put_break()
		put_prose(text_of(want_name[i]))
	}
}

function put_enum(name,    i, member) {
	put(".SS enum " name)
	if (text_of("enum " name) != "")
		put_prose(text_of("enum " name))
	for (i = 1; i <= members[name]; i++) {
		member = enumerator[name, i]
		put(".TP")
		put(".BR " member_name(member) " \" (" value_of(member) ")\"")
		member = member_name(member)
		put_prose(polished(text_of(member)))
	}
}

function value_of(member) {
	sub(/.*= /, "", member)
	return plain(member)
}

# A flag of another call of the noun does not belong here: UFFDWP_<NOUN>_<CALL>_<WORD>.
function is_foreign(flag, name,    i, other) {
	for (i = 1; i <= functions; i++) {
		other = toupper(function_name[i]) "_"
		if (function_name[i] != name && index(flag, other) == 1 && index(toupper(name) "_", other) != 1 &&
		    header_of[function_name[i]] == header_of[name])
			return 1
	}
	return 0
}

function put_flags(prefix, name,    i, flag, count) {
	count = 0
	for (i = 1; i <= macros; i++) {
		flag = macro_name[i]
		if (index(flag, prefix) != 1 || macro_value[flag] !~ /<</ || is_foreign(flag, name))
			continue
		if (!count++)
			put(".SS " prefix "*")
		put(".TP")
		put(".B " flag)
		put_prose(polished(text_of(flag)))
	}
}

function put_numbers(    i, name, headed) {
	headed = 0
	for (i = 1; i <= wants; i++) {
		if (want_kind[i] != "number")
			continue
		if (!headed++)
			put(".SS Values")
		name = want_name[i]
		put(".TP")
		put(bold(name) " (" verbatim(macro_value[name]) ")")
		put_prose(polished(text_of(name)))
	}
}

function put_constants(name,    i) {
	if (!("enum" in kinds || "flags" in kinds || "number" in kinds))
		return
	put(".SH CONSTANTS")
	for (i = 1; i <= wants; i++) {
		if (want_kind[i] == "enum")
			put_enum(want_name[i])
		else if (want_kind[i] == "flags")
			put_flags(want_name[i], name)
	}
	put_numbers()
}

# -------------------------------------------------------------------------------------------------------------- errors --

# What an error means where the text says no more, or says a usual word: the conventions at the top of uffdwp.h, and the
# kernel's own.
function meanings_load() {
	meaning["EACCES"] = "No permission."
	meaning["EAGAIN"] = "No thread can be made."
	meaning["EBADF"] = "The descriptor is not open."
	meaning["ECHILD"] = "The handle is one of the parent of this process; see `Processes` in uffdwp-caveats(7)."
	meaning["EDEADLK"] = "The stack, the thread-local memory or the alternate signal stack of the calling thread lies in the memory; see `Stacks` in uffdwp-caveats(7)."
	meaning["EDQUOT"] = "The quota of the file system is used up."
	meaning["EINVAL"] = "An argument is not right: `sz` is below 16 or ends inside of a pointer, or a flag or a value is unknown."
	meaning["EIO"] = "The disk has an error."
	meaning["EISDIR"] = "The path is that of a folder."
	meaning["E2BIG"] = "`sz` is larger than this library knows, and the bytes beyond are not all zeros."
	meaning["EMFILE"] = "The process may open no more descriptors."
	meaning["EMLINK"] = "More than 7 different handlers of the signal were found; see `Signal handlers` in uffdwp-caveats(7)."
	meaning["ENAMETOOLONG"] = "The path is too long."
	meaning["ENFILE"] = "The system has no more descriptors."
	meaning["ENOENT"] = "There is no such file or folder."
	meaning["ENOMEM"] = "There is no memory."
	meaning["ENOSPC"] = "The disk is full."
	meaning["ENOTDIR"] = "A part of the path is no folder."
	meaning["EOPNOTSUPP"] = "It does not work for this memory, mechanism or delivery, or not on this kernel; the text says why."
	meaning["EOVERFLOW"] = "The end of the range is beyond 64 bits."
	meaning["EPERM"] = "It is not allowed."
	meaning["EROFS"] = "The file system is read-only."
	meaning["ERANGE"] = "The range is not inside of the memory."
	meaning["ESTALE"] = "The region is dead: its memory was unmapped, or taken away from the library."
	usual["no thread"] = meaning["EAGAIN"]
	usual["outside"] = meaning["ERANGE"]
	usual["dead"] = usual["dead region"] = meaning["ESTALE"]
	usual["sz too small"] = "`sz` is not that of a structure of any release."
	usual["NULL"] = "An argument is NULL."
}

# One item: "-EBUSY (why)", "-EBUSY while ...", "what the kernel answered".
function put_error(item,    code_name, why) {
	sub(/^(and|or) /, "", item)
	if (!match(item, /^-E[A-Z0-9]+/)) {
		other_errors = other_errors (other_errors == "" ? "" : "; ") item
		return
	}
	code_name = substr(item, 2, RLENGTH - 1)
	why = substr(item, RLENGTH + 1)
	sub(/^:? +/, "", why)
	if (why ~ /^\(.*\)$/)
		why = substr(why, 2, length(why) - 2)
	if (why == "")
		why = code_name in meaning ? meaning[code_name] : "See \fBerrno\fR(3)."
	if (why in usual)
		why = usual[why]
	put(".TP")
	put(".B \\-" code_name)
	put_text(polished(why))
}

# Where an item ends: at a comma (or a semicolon) outside of brackets, before the next error.
function error_end(text,    i, c, depth, rest) {
	depth = 0
	for (i = 1; i <= length(text); i++) {
		c = substr(text, i, 1)
		depth += bracket(c)
		rest = substr(text, i)
		if (depth == 0 && rest ~ /^[,;] ((and|or) )?(-E[A-Z0-9]+|what |those of )/)
			return i
	}
	return length(text) + 1
}

function put_error_sentence(text,    colon, end, lead) {
	sub(/\.$/, "", text)
	other_errors = ""
	if (text ~ /^Errors?[ ,:]/) {
		colon = index(text, ": ")
		if (!colon) { # "Errors as of ..."
			put_break()
			put_text(text ".")
			return
		}
		lead = substr(text, 1, colon)
		text = substr(text, colon + 2)
		if (lead != "Errors:") {
			put_break()
			put_text(lead == "Errors, nothing changed:" ? "After any of these nothing has changed:" : lead)
		}
	}
	for (; text != ""; text = substr(text, end + 2)) {
		end = error_end(text)
		put_error(substr(text, 1, end - 1))
	}
	if (other_errors != "") {
		put_break()
		put_text("Also " other_errors ".")
	}
}

function put_errors(name,    i) {
	if (!errors)
		return
	put(".SH ERRORS")
	for (i = 1; i <= errors; i++)
		put_error_sentence(error_text[i])
}

# --------------------------------------------------------------------------------------------------------------- the end --

function put_returned(name) {
	put(".SH RETURN VALUE")
	if (returned != "")
		put_sentences(returned)
	else
		put_text(errors ? "Returns 0, or a negative error number; see below." : "Returns 0.")
	if (errors && description_all !~ /Forms no text/)
		put_text("After an error uffdwp_error_text() gives a text that says what was wrong, and what to do.")
}

function put_notes(name) {
	put(".SH NOTES")
	if (noted != "") {
		put_text(noted)
		put_text("May be called from any thread.")
	} else {
		put_text("May be called from any thread, but not from a signal handler.")
	}
	if (prototype[name] ~ /\(.*struct uffdwp(_region|_snapshot|_view|_child|_restore|_track|_image|_probe)? \*/)
		put_text("A handle must not be used while it is closed, or afterwards.")
	put_text("It is no cancellation point.")
}

# What else belongs to the noun: the functions of its header, and the pages of section 7.
function put_also(name,    i, list, count, other, concept) {
	put(".SH SEE ALSO")
	count = 0
	for (i = 1; i <= functions; i++) {
		other = function_name[i]
		if (other != name && header_of[other] == header_of[name])
			list[++count] = other "(3)"
	}
	if (header_of[name] != "runtime")
		list[++count] = "uffdwp_error_text(3)"
	list[++count] = "uffdwp(7)"
	list[++count] = "uffdwp-caveats(7)"
	concept = header_of[name] ~ /^(image|restore)$/ ? "uffdwp-image(7)" : "uffdwp-deliveries(7)"
	list[++count] = concept
	if (header_of[name] == "snapshot")
		list[++count] = "uffdwp-image(7)"
	for (i = 1; i <= count; i++) {
		other = list[i]
		sub(/\(.*/, "", other)
		gsub(/-/, "\\-", other)
		put(".BR " other " " substr(list[i], length(list[i]) - 2) (i < count ? "," : ""))
	}
}

function put_page(name,    i) {
	page = folder "/" name ".3"
	sort_sentences(text_of(name))
	want_all(name)
	description_all = ""
	for (i = 1; i <= described; i++)
		description_all = description_all "\n" description[i]
	put(".\\\" SPDX-License-Identifier: MIT")
	put(".\\\" Made from include/uffdwp/" header_of[name] ".h: change it there.")
	put(".TH " name " 3 " date " libuffdwp \"libuffdwp manual\"")
	put(".nh")
	put(".ad l")
	put(".SH NAME")
	put(name " \\- " summary(text_of(name)))
	put_synopsis(name)
	put_description(name)
	put_structs()
	put_callbacks()
	put_constants(name)
	put_returned(name)
	put_errors(name)
	put_notes(name)
	if (since != "") {
		put(".SH HISTORY")
		put_text("Since libuffdwp " since ".")
	}
	put_also(name)
	close(page)
}

END {
	meanings_load()
	for (i = 1; i <= functions; i++)
		put_page(function_name[i])
}
