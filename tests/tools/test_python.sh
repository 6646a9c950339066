#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The Python package, from the sources and the built library: snapshots of numpy arrays, forks, lifetimes, errors.
set -euo pipefail

: "${UFFDWP_SOURCE:?run by ctest}" "${UFFDWP_SHARED:?}"
if [[ -n ${UFFDWP_SANITIZE:-} ]]; then
	echo "skipped: a library with sanitizers does not load into a Python that knows nothing of them"
	exit 77
fi
python=${UFFDWP_PYTHON3:-/usr/bin/python3} # Debian's, which has Debian's modules
for module in cffi numpy; do
	"$python" -c "import $module" 2>/dev/null || {
		echo "skipped: $python has no module $module (on Debian python3-$module)"
		exit 77
	}
done

scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-python.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/packages" "$scratch/files"
cp -r "$UFFDWP_SOURCE/tools/python/uffdwp" "$scratch/packages/"
rm -f "$scratch/packages/uffdwp/_interface.py"
"$python" "$UFFDWP_SOURCE/tools/python/interface.py" --include "$UFFDWP_SOURCE/include" \
	"$scratch/packages/uffdwp/_interface.py" >/dev/null
export LD_LIBRARY_PATH=${UFFDWP_SHARED%/*} PYTHONPATH=$scratch/packages UFFDWP_SCRATCH=$scratch/files
export PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=error
cd "$UFFDWP_SOURCE/tests/tools/python"
if [[ $# -gt 0 ]]; then
	"$python" -m unittest -v "$@" 2>&1
else
	"$python" -m unittest discover -v 2>&1
fi

# As a user installs it: pip makes the same files, by setuptools, without a compiler and without the network.
PYTHONWARNINGS='' "$python" -c 'import setuptools, pip' 2>/dev/null || {
	echo "not tested here: an installation by pip: $python has no pip or no setuptools"
	exit 0
}
cp -r "$UFFDWP_SOURCE/tools/python" "$scratch/sources"
UFFDWP_INCLUDE=$UFFDWP_SOURCE/include CC=/bin/false PYTHONWARNINGS='' "$python" -m pip install --quiet --no-index --no-deps \
	--no-build-isolation --disable-pip-version-check --target "$scratch/site" "$scratch/sources" 2>"$scratch/pip.log" || {
	cat "$scratch/pip.log"
	exit 1
}
diff -r -x __pycache__ "$scratch/packages/uffdwp" "$scratch/site/uffdwp"
(cd / && PYTHONPATH=$scratch/site "$python" -c 'import uffdwp; uffdwp.open().close(); print("installed by pip:", uffdwp.version())')
