#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What carries the library inside is never unloaded: its signal handlers belong to the process, its threads run on.
# (What that is good for shows kernel/test_unload.c.)
set -euo pipefail

failed=0
for file in "$UFFDWP_BUILD"/lib/{libuffdwp.so,uffdwp_sqlite.so,libuffdwp_gc.so,libuffdwp_gc_preload.so,libuffdwp-fork.so}; do
	if [[ ! -e $file ]]; then
		echo "not tested here: $(basename "$file") was not built"
	elif ! readelf -d "$file" | grep -q 'FLAGS_1.*NODELETE'; then
		echo "$(basename "$file"): dlclose(3) would unload it: it is not linked with -z nodelete"
		failed=1
	fi
done
exit "$failed"
