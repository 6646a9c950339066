#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Both commands of the README in a bare Debian system (debootstrap --variant=minbase) under chroot: what they install, that
# no service is enabled, that the main job verifies its images and that all tests pass. The system is a fresh copy of one
# that is kept (roots.sh), and is removed. usage: tests/chroot.sh [--no-install] [--quick] [--keep]
#
#   --quick   the first command only
#   --keep    do not remove the system; its folder is printed
#
# Exit code: 0, also where it cannot be tried here (no root, no mirror), which is named; 1 when something is amiss; 2: a
# wrong argument.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/roots.sh
. tests/roots.sh

packages_most=60
suite=bookworm
quick=0
keep=0
install=1
for argument in "$@"; do
	case $argument in
	--quick) quick=1 ;;
	--keep) keep=1 ;;
	--no-install) install=0 ;;
	*)
		sed -n '3,/^set /{/^set /!s/^# \{0,1\}//p}' "$0" >&2
		exit 2
		;;
	esac
done

skip() {
	echo "not tested here: a bare system: $*"
	exit 0
}

make_system() {
	roots_copy_bare "$suite"
	mkdir -p "$root/src"
	git archive HEAD | tar -x -C "$root/src"
	roots_project=
}

packages() {
	# shellcheck disable=SC2016 # dpkg replaces it
	roots_run dpkg-query -W -f '${binary:Package}\n' | sort
}

# What is started when the system is up; rcS.d makes it so, as procps does, which cmake depends on (sysctl(8), once).
services() {
	find "$root/etc/systemd" "$root"/etc/rc[2-5].d -type l 2>/dev/null | sort
}

[[ $(id -u) -eq 0 ]] || skip "root is needed"
command -v apt-get >/dev/null || skip "there is no apt"
(roots_mirror) >/dev/null 2>&1 || skip "this machine's apt configuration names no mirror of Debian"
[[ $install -eq 0 ]] || ./tools/install-deps.sh reach
roots_scratch "$roots"
# shellcheck disable=SC2154 # roots_scratch sets it
[[ $keep -eq 0 ]] || trap 'echo "the system: $scratch/root"' EXIT
make_system
before=$(packages)
services_before=$(services)
roots_run /src/tools/quickstart.sh | tee "$scratch/quickstart" || roots_fail "tools/quickstart.sh"
grep -q 'verified: 5/5' "$scratch/quickstart" || roots_fail "tools/quickstart.sh verified less than five images"
installed=$(comm -13 <(echo "$before") <(packages) | wc -l)
echo "chroot: tools/quickstart.sh installed $installed packages"
[[ $installed -lt $packages_most ]] || roots_fail "tools/quickstart.sh installs $installed packages, $packages_most are too many"
if [[ $quick -eq 0 ]]; then
	roots_run /src/tests/run.sh | tee "$scratch/tests" || roots_fail "tests/run.sh"
	grep -q '^100% tests passed' "$scratch/tests" || roots_fail "tests/run.sh"
fi
[[ $(services) == "$services_before" ]] || roots_fail "services were enabled: $(comm -13 <(echo "$services_before") <(services))"
echo "chroot: passed, no service enabled"
