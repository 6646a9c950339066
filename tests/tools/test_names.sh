#!/bin/bash
# SPDX-License-Identifier: MIT
# Names that try to write to the terminal: what uffdwp-ctl prints is valid UTF-8 without control characters, and its
# JSON can be read. An image made of holes is reported as what it takes.
set -euo pipefail
folder=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-names.XXXXXX")
trap 'rm -rf "$folder"' EXIT
fail() { echo "failed: $*"; exit 1; }

name=$folder/$'evil\e[31m\xff\xe2\x80\xae\a.img'
truncate -s 64M "$name"
"$UFFDWP_CTL" image info "$name" > "$folder/text"
"$UFFDWP_CTL" image info --json "$name" > "$folder/json"
"$UFFDWP_CTL" image info "$name.gone" > "$folder/out" 2> "$folder/error" && fail "an image that is not there"
"$UFFDWP_CTL" image verify --json "$name" > "$folder/verify" || true
for file in text json error verify; do
	iconv -f UTF-8 -t UTF-8 "$folder/$file" > /dev/null || fail "$file is not UTF-8"
	LC_ALL=C grep -q '[[:cntrl:]]' <(tr -d '\n\t' < "$folder/$file") && fail "$file has control characters"
done
grep -qF 'evil\x1b[31m\xff\xe2\x80\xae\x07.img' "$folder/text" || fail "the name is not escaped in the text"
grep -qF 'evil\x1b[31m\xff\xe2\x80\xae\x07.img.gone' "$folder/error" || fail "the name is not escaped in the error"
grep -qF 'evil\u001b[31m\\xff' "$folder/json" || fail "the name is not in the JSON"
grep -q 'the file is 67108864 bytes long and takes 0$' "$folder/text" || fail "holes are counted: $(cat "$folder/text")"
grep -q '"allocated_bytes":0' <(tr -d ' ' < "$folder/json") || fail "holes are counted in the JSON"

program=$folder/$'p\e[1m\xff'
printf '#!/bin/sh\ntrue\n' > "$program"
chmod +x "$program"
if "$UFFDWP_CTL" dirty --json="$folder/dirty.json" -- "$program" $'\e]0;x\a\xfe' > "$folder/dirty" 2>&1; then
	iconv -f UTF-8 -t UTF-8 "$folder/dirty.json" > /dev/null || fail "the JSON of dirty is not UTF-8"
	LC_ALL=C grep -q '[[:cntrl:]]' <(tr -d '\n\t' < "$folder/dirty") && fail "dirty prints control characters"
else
	echo "not tested here: uffdwp-ctl dirty: $(head -1 "$folder/dirty" | tr -d '[:cntrl:]')"
fi
echo "names are escaped"
