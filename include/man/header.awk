# SPDX-License-Identifier: MIT
# Reads the public headers for page.awk, in the shape that .clang-format gives them. What it understands:
#
#   /* text */ above a function, a struct, an enum, a callback's typedef or a #define    its documentation
#   /* text */ above `struct name;`, or with an empty line after it                     an essay: for the next function
#   /* text */ after a member, or above members until an empty line or the next text    what these members are
#   /* text */ above #if or #include                                                    not for manuals
#
# A text is kept as it stands, a line each, without the signs of the comment. Only what POSIX says of awk is used.

# Strips what makes a comment of a line.
function comment_line(line) {
	sub(/^[ \t]*\/\*+[ \t]?/, "", line)
	sub(/[ \t]*\*\/[ \t]*$/, "", line)
	if (line ~ /^[ \t]*\*$/)
		return ""
	sub(/^[ \t]*\* ?/, "", line)
	return line
}

# A comment that begins in `line`, to its end in this line or a later one.
function comment_read(line,    text) {
	text = comment_line(line)
	while (line !~ /\*\/[ \t]*$/ && (getline line) > 0)
		text = text "\n" comment_line(line)
	sub(/^\n/, "", text)
	sub(/\n$/, "", text)
	return text
}

# The comment at the end of a line of code, or "". Leaves the code in `code`.
function comment_trailing(line,    at, text) {
	at = index(line, "/*")
	code = line
	if (!at)
		return ""
	code = substr(line, 1, at - 1)
	sub(/[ \t]+$/, "", code)
	text = comment_read(substr(line, at))
	gsub(/\n[ \t]*/, "\n", text)
	return text
}

# A declaration that may go on in the next lines, as one line.
function declaration_read(line,    more) {
	while (line !~ /;/ && (getline more) > 0) {
		sub(/^[ \t]+/, "", more)
		line = line (line ~ /\($/ ? "" : " ") more
	}
	gsub(/UFFDWP_(EXPORT|MUST_CHECK) /, "", line)
	sub(/;.*/, "", line)
	return line
}

function essay_keep(title, text) {
	essay_title[++essays] = title
	essay_text[essays] = text
}

function function_keep(line, text,    name) {
	line = declaration_read(line)
	name = line
	sub(/\(.*/, "", name)
	sub(/.*[ *]/, "", name)
	function_name[++functions] = name
	function_number[name] = functions
	prototype[name] = line
	doc[name] = text
	header_of[name] = header
	essay_first[name] = essays_before + 1
	essay_last[name] = essays
	essays_before = essays
}

function typedef_keep(line, text,    name) {
	line = declaration_read(line)
	name = line
	sub(/^[^(]*\(\*/, "", name)
	sub(/\).*/, "", name)
	callback[name] = line
	doc[name] = text
}

# A macro with a value. One that has none, or arguments, is no constant of the interface.
function macro_keep(line, text,    name, value, trailing) {
	trailing = comment_trailing(line)
	name = code
	sub(/^#define /, "", name)
	value = name
	sub(/[( ].*/, "", name)
	if (substr(value, length(name) + 1, 1) != " ")
		return
	value = substr(value, length(name) + 2)
	if (name ~ /_INIT$/) {
		sub(/^UFFDWP_INIT/, "", value)
		initial[value] = name
		return
	}
	if (value !~ /^(\(1u << [0-9]+\)|[0-9]+|".*")$/)
		return
	if (value ~ /^"/ && text != "") {
		essay_keep(name, text)
		text = ""
	}
	macro_name[++macros] = name
	macro_value[name] = value
	doc[name] = text trailing
}

function enum_member(name, line,    member, trailing) {
	trailing = comment_trailing(line)
	member = code
	sub(/^[ \t]+/, "", member)
	sub(/,$/, "", member)
	enumerator[name, ++members[name]] = member
	sub(/ =.*/, "", member)
	doc[member] = trailing
}

function enum_keep(line, text,    name, list, count, i, above, more) {
	name = line
	sub(/^enum /, "", name)
	sub(/ .*/, "", name)
	members[name] = 0
	doc["enum " name] = text
	is_enum[name] = 1
	if (line ~ /\}/) {
		sub(/^[^{]*\{ */, "", line)
		sub(/ *\}.*/, "", line)
		count = split(line, list, /, */)
		for (i = 1; i <= count; i++)
			enum_member(name, list[i])
		return
	}
	while ((getline line) > 0 && line !~ /^\}/) {
		if (line ~ /^[ \t]*\/\*/) {
			above = comment_read(line)
			continue
		}
		while (line ~ /=[ \t]*$/ && (getline more) > 0)
			line = line more
		enum_member(name, line)
		if (above != "")
			doc[member_name(enumerator[name, members[name]])] = above
		above = ""
	}
}

function member_name(text) {
	sub(/ =.*/, "", text)
	return text
}

# Members: each with its own text, with that of the members before it ("+"), or without.
function struct_keep(line, text,    name, above, trailing) {
	name = line
	sub(/^struct /, "", name)
	sub(/ .*/, "", name)
	fields[name] = 0
	is_struct[name] = 1
	doc["struct " name] = text
	above = ""
	while ((getline line) > 0 && line !~ /^\}/) {
		if (line ~ /^[ \t]*$/) {
			above = ""
			continue
		}
		if (line ~ /^[ \t]*\/\*/) {
			above = comment_read(line)
			fresh = 1
			continue
		}
		trailing = comment_trailing(line)
		sub(/^[ \t]+/, "", code)
		sub(/;$/, "", code)
		gsub(/[ \t]+/, " ", code)
		field[name, ++fields[name]] = code
		if (trailing != "") {
			if (above != "" && fresh)
				field_heading[name, fields[name]] = above
			above = ""
			field_text[name, fields[name]] = trailing
		} else if (above != "") {
			field_text[name, fields[name]] = fresh ? above : "+"
		}
		fresh = 0
	}
}

FNR == 1 {
	header = FILENAME
	sub(/.*\//, "", header)
	sub(/\.h$/, "", header)
	pending = ""
	is_pending = 0
}

/^\/\*/ {
	pending = comment_read($0)
	is_pending = 1
	next
}

/^[ \t]*$/ {
	if (is_pending)
		essay_keep("", pending)
	pending = ""
	is_pending = 0
	next
}

/^#(if|include|undef|else|endif)/ { pending = "" }
/^#define/ { macro_keep($0, pending) }
/^struct [a-z_]+;/ && pending != "" { essay_keep(substr($0, 1, length($0) - 1), pending) }
/^struct [a-z_]+ \{/ { struct_keep($0, pending) }
/^enum [a-z_]+ \{/ { enum_keep($0, pending) }
/^typedef [^;]*\(\*/ { typedef_keep($0, pending) }
/^(UFFDWP_MUST_CHECK )?UFFDWP_EXPORT/ { function_keep($0, pending) }
{
	pending = ""
	is_pending = 0
}
