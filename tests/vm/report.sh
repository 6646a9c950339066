#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Reads what guests left, and prints it for people: the matrix, the reasons of what was refused, the steps, what was
# skipped, what failed, and the verdict. Exit code: 0, or 1 when anything failed. usage: report.sh LOGS BOOT...
# (environment: VERBOSE=1, ASKED_BY_NAME=1, SECONDS_TAKEN=N, CELLS=N)
set -euo pipefail
shopt -s nullglob
[[ $# -ge 2 && -d $1 ]] || {
	echo "usage: report.sh LOGS BOOT..." >&2
	exit 2
}
logs=$1
shift
boots=("$@")
failures=()
ran=()
cells=${CELLS:-48} # memory x mechanism x delivery x job

heading() {
	printf '\n== %s\n' "$1"
}

# What the guest said, without the serial line's own noise.
results_of() {
	tr -d '\r\0' <"$logs/$1/results"
}

output_of_step() {
	results_of "$1" | awk -v step="$2" '$1 == "@begin" { inside = $2 == step; next } $1 == "@end" { inside = 0 }
		inside && NF'
}

cells_of() {
	output_of_step "$1" matrix | grep '^cell ' || true
}

# --- the matrix -------------------------------------------------------------------------------------------------

print_matrix() {
	local boot
	for boot in "${ran[@]}"; do
		cells_of "$boot" | sed "s/^/$boot /"
	done | awk '
		function label(key, t, i) {
			t = verdict[key, "thread"]; i = verdict[key, "inline"]
			if (t == "failed" || i == "failed") return "FAIL"
			if (t == "" || i == "") return "-"
			if (t == "refused" && i == "refused") return "refused"
			return t == i ? "ok" : t == "proved" ? "thread" : "inline"
		}
		!($1 in seen) { seen[$1] = 1; boots[++count] = $1 }
		{ verdict[$1, $6, $3, $4, $5] = $7 }
		END {
			split("shmem hugetlb anon", memories); split("marker rearm minor mprotect", mechanisms)
			split("arm preserve", jobs)
			printf "%-12s %-9s", "", ""
			for (m = 1; m <= 3; m++) printf "| %-34s", memories[m]
			printf "\n%-12s %-9s", "kernel", "job"
			for (m = 1; m <= 3; m++) { printf "|"; for (n = 1; n <= 4; n++) printf " %-8s", mechanisms[n]; }
			printf "\n"
			for (b = 1; b <= count; b++) for (j = 1; j <= 2; j++) {
				printf "%-12s %-9s", j == 1 ? boots[b] : "", jobs[j]
				for (m = 1; m <= 3; m++) {
					printf "|"
					for (n = 1; n <= 4; n++) {
						key = boots[b] SUBSEP jobs[j] SUBSEP memories[m] SUBSEP mechanisms[n]
						printf " %-8s", label(key)
					}
				}
				printf "\n"
			}
		}'
	echo "ok: proved by both deliveries; inline, thread: by this one, the other is refused; -: not tried"
}

# Each reason once, with where it applies: a delivery is named where only that one was refused.
print_reasons() {
	local boot
	for boot in "${ran[@]}"; do
		cells_of "$boot" | sed "s/^/$boot /"
	done | awk '
		$7 == "refused" {
			reason = $0
			for (i = 1; i <= 7; i++) sub(/^[^ ]+ /, "", reason)
			sub(/ \[[0-9]+ ms\]$/, "", reason)
			sub(/^[a-z]+ memory cannot be watched by [a-z]+: /, "", reason)
			if (!(reason in known)) { known[reason] = 1; reasons[++reason_count] = reason }
			place = $3 "/" $4
			if (!((reason, $1) in known)) { known[reason, $1] = 1; boots[reason] = boots[reason] " " $1 }
			if (!((reason, $1, place) in known)) {
				known[reason, $1, place] = 1
				places[reason, $1] = places[reason, $1] " " place
			}
			if (!((reason, $1, place, $5) in known)) {
				known[reason, $1, place, $5] = 1
				deliveries[reason, $1, place] = deliveries[reason, $1, place] " " $5
			}
		}
		END {
			for (r = 1; r <= reason_count; r++) {
				reason = reasons[r]
				print "  " reason
				boot_count = split(boots[reason], boot_list, " ")
				for (b = 1; b <= boot_count; b++) {
					line = "      " boot_list[b] ":"
					place_count = split(places[reason, boot_list[b]], place_list, " ")
					for (p = 1; p <= place_count; p++) {
						only = deliveries[reason, boot_list[b], place_list[p]]
						line = line " " place_list[p] (only ~ / .* / ? "" : " (" substr(only, 2) ")")
					}
					print line
				}
			}
		}'
}

print_control() {
	local boot
	for boot in "${ran[@]}"; do
		output_of_step "$boot" matrix | awk -v boot="$boot" '
			$1 == "bare" { line = line sprintf(" %s %s,", $3, $4) }
			END { if (line) printf "  %-12s%s\n", boot, substr(line, 1, length(line) - 1) }'
	done
}

# What rearm counted where wp bits are lost.
print_losses() {
	local boot
	for boot in "${ran[@]}"; do
		cells_of "$boot" | awk -v boot="$boot" '
			$3 == "rearm" && $5 == "preserve" && $6 == "proved" {
				line = ""
				for (i = 7; i <= NF; i++) if ($i ~ /^(lost-|rearmed)/) line = line " " $i
				printf "  %-12s %-8s %-7s%s\n", boot, $2, $4, line
			}'
	done
}

# --- steps ------------------------------------------------------------------------------------------------------

# "STEP STATUS SECONDS" of a boot; a step that never ended has the status "hung".
steps_of() {
	results_of "$1" | awk '$1 == "@begin" { open = $2 } $1 == "@end" { print $2, $3, $4; open = "" }
		END { if (open) print open, "hung", 0 }'
}

# What a status means; doctor ends with 3 where there are limits.
judge() {
	local step=$1 status=$2
	case $status in
	0) echo ok ;;
	77) echo skipped ;;
	3) [[ $step == doctor ]] && echo ok || echo FAILED ;;
	137) echo "TIMEOUT" ;;
	*) echo FAILED ;;
	esac
}

print_steps() {
	local boot step status seconds verdict
	for boot in "${ran[@]}"; do
		printf '  %s: %s\n' "$boot" "$(cat "$logs/$boot/title")"
		while read -r step status seconds; do
			verdict=$(judge "$step" "$status")
			printf '      %-24s %-8s %4s s\n' "$step" "$verdict" "$seconds"
			case $verdict in
			FAILED | TIMEOUT)
				failures+=("$boot: $step: ${verdict,,}")
				output_of_step "$boot" "$step" | grep -vE '^(cell .* (proved|refused)|track (proved|refused)|seed|not tested here)' |
					tail -n 12 | cut -c 1-240 | sed 's/^/          | /' || true
				;;
			esac
		done < <(steps_of "$boot")
	done
}

print_numa() {
	local boot
	for boot in "${ran[@]}"; do
		output_of_step "$boot" numa | grep '^numa ' | sed "s/^numa /  $boot: /" || true
	done
}

print_ladder() {
	if [[ ${VERBOSE:-0} -eq 1 ]]; then
		output_of_step "$1" doctor | sed 's/^/  /'
	elif [[ $1 == 5.10 ]]; then
		results_of "$1" | awk '/^The ladder/ { inside = 1 } inside && !NF { inside = 0 } inside { print "  " $0 }'
	fi
}

print_doctor() {
	local boot text
	for boot in "${ran[@]}"; do
		text=$(print_ladder "$boot")
		[[ -n $text ]] || continue
		heading "uffdwp-ctl doctor on $boot"
		echo "$text"
	done
}

print_cells() {
	local boot
	[[ ${VERBOSE:-0} -eq 1 ]] || return 0
	heading "Every cell"
	for boot in "${ran[@]}"; do
		cells_of "$boot" | sed "s/^cell /  $boot: /"
	done
}

# --- what did not run -------------------------------------------------------------------------------------------

check_cells() {
	local boot count
	for boot in "${ran[@]}"; do
		grep -q 'uffdwp_vm_matrix' "$logs/$boot/plan" || continue
		count=$(cells_of "$boot" | wc -l)
		[[ $count -eq $cells ]] || failures+=("$boot: $count of $cells cells were tried")
	done
}

take_dead() {
	local boot=$1
	failures+=("$boot: $(tail -n 1 "$logs/$boot/died")")
	heading "The last words of $boot"
	tr -d '\r\0' <"$logs/$boot/console" 2>/dev/null | tail -n 25 | sed 's/^/  | /' || true
}

print_skipped() {
	local boot printed=0
	for boot in "${boots[@]}"; do
		[[ -e $logs/$boot/skipped ]] || continue
		[[ $((printed++)) -gt 0 ]] || heading "Skipped"
		printf '  %s: %s\n' "$boot" "$(tail -n 1 "$logs/$boot/skipped")"
		[[ ${ASKED_BY_NAME:-0} -eq 0 ]] || failures+=("$boot: was not available")
	done
	for boot in "${ran[@]}"; do
		results_of "$boot" | sed -nE 's/^(skipped|no (huge pages|swap) here): /\1: /p' | sort -u |
			sed "s/^/  $boot: /"
	done
}

verdict() {
	local cells proved refused
	cells=$(for boot in "${ran[@]}"; do cells_of "$boot"; done)
	proved=$(grep -cE '^cell ([^ ]+ ){4}proved' <<<"$cells" || true)
	refused=$(grep -cE '^cell ([^ ]+ ){4}refused' <<<"$cells" || true)
	if [[ ${#failures[@]} -gt 0 ]]; then
		heading "Failed"
		printf '  %s\n' "${failures[@]}"
	fi
	printf '\nvm: %s: %d of %d guests ran in %d s; %d cells proved, %d refused with a reason, %d failures\n' \
		"$([[ ${#failures[@]} -eq 0 ]] && echo passed || echo FAILED)" "${#ran[@]}" "${#boots[@]}" \
		"${SECONDS_TAKEN:-0}" "$proved" "$refused" "${#failures[@]}"
	[[ ${#failures[@]} -eq 0 ]]
}

for boot in "${boots[@]}"; do
	[[ ! -e $logs/$boot/results ]] || ran+=("$boot")
done
heading "Mechanisms: by kernel and job, for each type of memory"
print_matrix
heading "Why refused"
print_reasons
heading "The control: bare write protection of shared memory, writes after a page was..."
print_control
heading "Losses that rearm met in its snapshots"
print_losses
print_doctor
print_cells
heading "Steps"
print_steps
print_numa
for boot in "${boots[@]}"; do
	[[ ! -e $logs/$boot/died ]] || take_dead "$boot"
done
check_cells
print_skipped
verdict
