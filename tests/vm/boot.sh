#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Boots one guest under qemu's software emulation, and leaves in LOG what it said: `results` (what the plan's steps
# printed) and `console` (the kernel's words). usage: boot.sh KERNEL WORLD PLAN LOG [OPTION]...
#
#   KERNEL           a bzImage, or a folder into which a kernel package was unpacked
#   WORLD            an archive of world.sh
#   PLAN             a shell script of `step`s, see guest/init
#   --memory=MIB     (2048)
#   --numa           two nodes of half of the memory each, and four CPUs instead of two
#
# A guest is ended when it stands still: when the step that it began last has not ended long after its limit.
#
# Exit code: 0 when the guest came to the end of its plan, else 1, with the reason on stderr.
set -euo pipefail
shopt -s nullglob

[[ $# -ge 4 ]] || {
	sed -n '3,/^set /{/^set /!p}' "$0" >&2
	exit 2
}
kernel=$1 world=$2 plan=$3 log=$4
shift 4
memory=2048 numa=0
for option in "$@"; do
	case $option in
	--memory=*) memory=${option#*=} ;;
	--numa) numa=1 ;;
	*)
		echo "boot.sh: unknown option $option" >&2
		exit 2
		;;
	esac
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/modules" "$log"
: >"$work/root/modules/order"

# The file of a module, unpacked, in front of it those that it depends on.
take_module() {
	local tree=$1 dep=$2 wanted=$3 line module name
	line=$(grep -E "/$wanted\.ko[^:/]*:" "$dep" | head -n 1) || return 0
	for module in $(tr ' ' '\n' <<<"${line#*:}" | tac) "${line%%:*}"; do
		name=$(basename "$module" | sed 's/\.\(xz\|zst\|gz\)$//')
		[[ ! -e $work/root/modules/$name ]] || continue
		case $module in
		*.xz) xz -dc "$tree/$module" ;;
		*.zst) zstd -dcq "$tree/$module" ;;
		*.gz) gzip -dc "$tree/$module" ;;
		*) cat "$tree/$module" ;;
		esac >"$work/root/modules/$name"
		echo "$name" >>"$work/root/modules/order"
	done
}

# Swap is on zram, which packaged kernels have as a module.
take_modules() {
	local tree=$1 dep=$1/modules.dep module
	if [[ ! -f $dep ]]; then
		depmod -b "${tree%/lib/modules/*}" -o "$work/index" "$(basename "$tree")"
		dep=$(find "$work/index" -name modules.dep)
	fi
	for module in lzo-rle zram; do
		take_module "$tree" "$dep" "$module"
	done
}

image=$kernel
if [[ -d $kernel ]]; then
	for tree in "$kernel"/lib/modules/* "$kernel"/usr/lib/modules/*; do
		take_modules "$tree"
	done
	images=("$kernel"/boot/vmlinuz* "$kernel"/lib/modules/*/vmlinuz* "$kernel"/usr/lib/modules/*/vmlinuz*)
	image=${images[0]:-}
fi
[[ -n $image && -r $image ]] || {
	echo "no kernel image in $kernel" >&2
	exit 1
}
cp "$plan" "$work/root/plan"
# Archives one after the other are unpacked one over the other.
cp "$world" "$work/initrd"
(cd "$work/root" && find . -mindepth 1 | cpio -o -H newc --quiet) >>"$work/initrd"

machine=(-smp 2 -m "$memory")
if [[ $numa -eq 1 ]]; then
	half=$((memory / 2))
	machine=(-smp 4 -m "$memory" -object "memory-backend-ram,id=m0,size=${half}M"
		-object "memory-backend-ram,id=m1,size=${half}M" -numa "node,nodeid=0,cpus=0-1,memdev=m0"
		-numa "node,nodeid=1,cpus=2-3,memdev=m1")
fi
# A processor as plain as the kernels take: qemu 7.2 leaves garbage in the flags after an instruction or other of the newer
# ones (cmpxchg16b without a lock, as slab allocators use it), and the guest dies of it after some minutes.
processor=Nehalem,-cx16,+rdrand
stands_still=0
qemu-system-x86_64 -accel tcg,thread=multi -cpu "$processor" "${machine[@]}" -display none -nodefaults \
	-no-reboot -serial "file:$log/console" -serial "file:$log/results" -kernel "$image" -initrd "$work/initrd" \
	-append 'console=ttyS0 panic=-1 quiet loglevel=4' </dev/null >"$log/qemu" 2>&1 &
guest=$!
trap 'kill -KILL "$guest" 2>/dev/null || true; rm -rf "$work"' EXIT

# The seconds that a guest may be silent: until its first step, and after that twice the limit of the last one.
time_limit() {
	local limit
	limit=$({ tr -d '\r\0' <"$log/results" || true; } 2>/dev/null | awk '$1 == "@begin" { limit = $3 } END { print limit + 0 }')
	echo $((limit > 0 ? 2 * limit + 60 : 600))
}

said=-1 since=$SECONDS
while kill -0 "$guest" 2>/dev/null; do
	now_said=$({ stat -c %s "$log/results" "$log/console" 2>/dev/null || true; } | paste -sd +)
	if [[ $now_said != "$said" ]]; then
		said=$now_said since=$SECONDS
	elif [[ $((SECONDS - since)) -gt $(time_limit) ]]; then
		stands_still=1
		kill -KILL "$guest" 2>/dev/null || true
	fi
	sleep 1
done
wait "$guest" || true

tr -d '\r' <"$log/console" >"$work/console"
if [[ $stands_still -eq 1 ]]; then
	echo "it stood still for $((SECONDS - since)) s" >&2
	exit 1
elif ! grep -qx '@off' "$log/results"; then
	echo "the guest died: $(grep -aE 'panic|BUG|Oops' "$work/console" | head -n 1) $(tail -n 1 "$log/qemu")" >&2
	exit 1
fi
