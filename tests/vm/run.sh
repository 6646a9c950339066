#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Boots the project's kernel tests on other kernels, under qemu's software emulation, and prints what works where.
# kernel.sh gets the kernels, world.sh makes what the guests find, boot.sh boots one, plans.sh says what each does,
# report.sh reads what they said. Nothing on this machine is changed but the cache of kernels.
set -euo pipefail
cd_from=$PWD
cd "$(dirname "$0")/../.."
here=tests/vm
export LC_ALL=C.UTF-8
read -ra stock_kernels <<<"$("$here/plans.sh" kernels)"
read -ra special_boots <<<"$("$here/plans.sh" specials)"

usage() {
	cat <<'END'
usage: tests/vm/run.sh [OPTION]...

  --kernel NAME|PATH   only this kernel (repeatable): a name of --list, a bzImage, or a folder into which a kernel package
                       was unpacked. The special boots run if 6.12 or newest is among them
  --quick              each kernel once, with the core of the matrix only; markerless if it was built before
  --only BOOT          only this boot of --list (repeatable)
  --list               the boots, and the kernels that are in the cache
  --update             look for newer kernels than those in the cache
  --build DIR          take the programs from this build folder instead of building in build/
  --jobs N             boots at a time (the number of CPUs)
  --verbose            what uffdwp-ctl doctor says on each kernel, and the counters of each cell
  --keep-logs          do not remove the guests' logs; their folder is printed
  --no-install         take the packages that are there
  --help

UFFDWP_SEED=N repeats the random tests of a former run. UFFDWP_VM_CACHE=DIR is where kernels are kept.

Exit code: 0 when every cell is proved, or refused with a reason, and no test failed; what was not available is skipped by
name. 1 when something failed, or a kernel was asked for by --kernel and was not available; 2 for a wrong argument.
END
}

wrong() {
	echo "run.sh: $*, see --help" >&2
	exit 2
}

kernels=()
only=()
asked_by_name=0
build=
jobs=$(nproc)
verbose=0
keep_logs=0
install=1
update=()
list=0
quick=0

absolute() {
	case $1 in
	/*) echo "$1" ;;
	*) echo "$cd_from/$1" ;;
	esac
}

add_kernel() {
	asked_by_name=1
	if [[ " ${stock_kernels[*]} " == *" $1 "* ]]; then
		kernels+=("$1")
	elif [[ -e $(absolute "$1") ]]; then
		kernels+=("$(realpath "$(absolute "$1")")")
	else
		wrong "--kernel $1: neither a name (${stock_kernels[*]}) nor a path"
	fi
}

take_value() {
	case $1 in
	--kernel) add_kernel "$2" ;;
	--only) only+=("$2") ;;
	--build) build=$(absolute "$2") ;;
	--jobs)
		[[ $2 =~ ^[1-9][0-9]*$ ]] || wrong "--jobs $2: not a number"
		jobs=$2
		;;
	esac
}

parse() {
	while [[ $# -gt 0 ]]; do
		case $1 in
		--help | -h) usage && exit 0 ;;
		--kernel=* | --only=* | --build=* | --jobs=*) take_value "${1%%=*}" "${1#*=}" ;;
		--kernel | --only | --build | --jobs)
			[[ $# -ge 2 ]] || wrong "$1 needs a value"
			take_value "$1" "$2"
			shift
			;;
		--list) list=1 ;;
		--quick) quick=1 ;;
		--update) update=(--update) ;;
		--verbose) verbose=1 ;;
		--keep-logs) keep_logs=1 ;;
		--no-install) install=0 ;;
		*) wrong "unknown argument '$1'" ;;
		esac
		shift
	done
	[[ $asked_by_name -eq 1 ]] || kernels=("${stock_kernels[@]}")
}

# --- which boots ------------------------------------------------------------------------------------------------

declare -A kernel_of=()
boots=()

# The name of a kernel given by path: its last part, made unique and harmless in a file's name, and no name of ours: of
# those the plans know what to expect.
boot_name() {
	local name
	[[ $1 == /* ]] || {
		echo "$1"
		return
	}
	name=$(basename "$1" | tr -c 'A-Za-z0-9._+\n' '_')
	while [[ -n ${kernel_of[$name]:-} || " ${stock_kernels[*]} ${special_boots[*]} " == *" $name "* ]]; do
		name+=_
	done
	echo "$name"
}

special_kernel() {
	local wanted
	for wanted in 6.12 newest; do
		[[ " ${kernels[*]} " == *" $wanted "* ]] && echo "$wanted" && return
	done
	return 0
}

# A kernel that has to be built first takes longer than all boots.
choose_quick() {
	local boot all=("${boots[@]}")
	boots=()
	for boot in "${all[@]}"; do
		if [[ $boot == markerless && $("$here/kernel.sh" --list) =~ markerless\ +not ]]; then
			echo "skipped: markerless: it is not built yet (tests/vm/run.sh --only markerless does)"
		else
			boots+=("$boot")
		fi
	done
	[[ ${#only[@]} -eq 0 ]] || boots=("${only[@]}")
}

choose_boots() {
	local kernel name special boot
	for kernel in "${kernels[@]}"; do
		name=$(boot_name "$kernel")
		kernel_of[$name]=$kernel
		boots+=("$name")
	done
	if [[ $quick -eq 1 ]]; then
		choose_quick
		return
	fi
	special=$(special_kernel)
	for boot in "${special_boots[@]}"; do
		[[ -n $special ]] || break
		kernel_of[$boot]=$special
		boots+=("$boot")
	done
	for boot in "${only[@]}"; do
		[[ -n ${kernel_of[$boot]:-} ]] || wrong "--only $boot: no such boot; there are: ${boots[*]}"
	done
	[[ ${#only[@]} -eq 0 ]] || boots=("${only[@]}")
}

print_list() {
	local boot
	for boot in "${boots[@]}"; do
		printf '%-12s %s\n' "$boot" "$("$here/plans.sh" title "$boot")"
	done
	printf '\nKernels:\n'
	"$here/kernel.sh" --list
}

# --- what is needed ---------------------------------------------------------------------------------------------

require_tools() {
	local tool missing=()
	for tool in qemu-system-x86_64 busybox cpio depmod xz zstd sqlite3 setpriv strip; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	if [[ ${#missing[@]} -gt 0 || $(uname -m) != x86_64 ]]; then
		echo "skipped: all boots: ${missing[*]:+these programs are missing: ${missing[*]} (tools/install-deps.sh vm)}" \
			"$([[ $(uname -m) == x86_64 ]] || echo "the guests run x86_64 programs, this machine is $(uname -m)")"
		exit 0
	fi
}

install_packages() {
	[[ $install -eq 1 ]] || return 0
	./tools/install-deps.sh build test vm ||
		echo "run.sh: packages could not be installed; what needs them is skipped" >&2
}

build_programs() {
	if [[ -z $build ]]; then
		build=$PWD/build
		echo "building in build/ ..."
		mkdir -p build
		./tests/run.sh --build-only --no-install >build/vm-build.log 2>&1 || {
			tail -n 30 build/vm-build.log >&2
			echo "run.sh: the build failed, see build/vm-build.log" >&2
			exit 1
		}
	fi
	[[ -x $build/tests/uffdwp_vm_matrix ]] || wrong "--build $build: no build folder with tests"
}

# --- booting ----------------------------------------------------------------------------------------------------

options_of() {
	case $1 in
	numa) echo "--numa" ;;
	esac
}

# The folder of a boot then holds `skipped` or `died` with the reason, or neither.
run_boot() {
	local boot=$1 log=$logs/$1 kernel=${kernel_of[$1]} path options started=$SECONDS
	mkdir -p "$log"
	"$here/plans.sh" title "$boot" >"$log/title"
	echo "$kernel" >"$log/kernel"
	path=$kernel
	if [[ $kernel != /* ]]; then
		path=$("$here/kernel.sh" "${update[@]}" "$kernel" 2>"$log/skipped") || {
			echo "  $boot: skipped"
			return 0
		}
		rm "$log/skipped"
	fi
	"$here/plans.sh" "$([[ $quick -eq 1 ]] && echo quick || echo plan)" "$boot" >"$log/plan"
	read -ra options <<<"$(options_of "$boot")"
	if "$here/boot.sh" "$path" "$logs/world" "$log/plan" "$log" "${options[@]}" 2>"$log/died"; then
		rm "$log/died"
	fi
	echo "  $boot: $([[ -e $log/died ]] && echo "DIED" || echo "done"), $((SECONDS - started)) s"
}

run_boots() {
	local boot running=0
	for boot in "${boots[@]}"; do
		if [[ $running -ge $jobs ]]; then
			wait -n || true
			running=$((running - 1))
		fi
		run_boot "$boot" &
		running=$((running + 1))
	done
	wait
}

# shellcheck disable=SC2317 # the trap calls it
cleanup() {
	local pids
	mapfile -t pids < <(jobs -p)
	[[ ${#pids[@]} -eq 0 ]] || kill "${pids[@]}" 2>/dev/null || true
	if [[ $keep_logs -eq 1 ]]; then
		rm -f "$logs/world"
		echo "logs: $logs"
	else
		rm -rf "$logs"
	fi
}

parse "$@"
"$here/plans.sh" check
choose_boots
if [[ $list -eq 1 ]]; then
	print_list
	exit 0
fi
install_packages
require_tools
build_programs
logs=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-vm-XXXXXX")
trap cleanup EXIT
trap 'exit 130' INT TERM
"$here/world.sh" "$build" "$logs/world"
echo "booting ${#boots[@]} guests, $jobs at a time: ${boots[*]}"
run_boots
# In short only what preserves is played.
CELLS=$((quick ? 24 : 48)) VERBOSE=$verbose ASKED_BY_NAME=$asked_by_name SECONDS_TAKEN=$SECONDS "$here/report.sh" "$logs" "${boots[@]}"
