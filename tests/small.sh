#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The library with all left out that can be left out, where nothing but liburing and the header of xxhash is available,
# and no C++ compiler: it is installed, and the README's program runs with it, linked with either form. CMake says which
# option leaves out what is missing. Then the same as part of another project, whose variables it leaves alone; and the
# unit tests of such a build. usage: tests/small.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/uffdwp-small-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
jobs=$(nproc)
without=(-DUFFDWP_ZSTD=OFF -DUFFDWP_NUMA=OFF -DUFFDWP_NBD=OFF -DUFFDWP_CONTROL=OFF)

fail() {
	echo "small: FAILED: $*" >&2
	exit 1
}

quietly() {
	"$@" >"$scratch/log" 2>&1 || {
		tail -n 40 "$scratch/log" >&2
		fail "$*"
	}
}

# pkg-config sees nothing but what is named.
limit_to() {
	local name folder
	rm -rf "$scratch/pkgconfig"
	mkdir "$scratch/pkgconfig"
	for name in "$@"; do
		folder=$(env -u PKG_CONFIG_LIBDIR pkg-config --variable=pcfiledir "$name")
		ln -s "$folder/$name.pc" "$scratch/pkgconfig/"
	done
	export PKG_CONFIG_LIBDIR=$scratch/pkgconfig
}

install_it() {
	export CXX=/bin/false
	quietly cmake -S . -B "$scratch/alone" -DCMAKE_INSTALL_PREFIX="$scratch/usr" -DUFFDWP_TESTS=OFF -DUFFDWP_TOOLS=OFF \
		-DUFFDWP_BENCH=OFF "${without[@]}"
	quietly cmake --build "$scratch/alone" -j "$jobs"
	quietly cmake --install "$scratch/alone"
	[[ -f $scratch/usr/share/man/man3/uffdwp_open.3 && -f $scratch/usr/share/man/man7/uffdwp.7 &&
		! -e $scratch/usr/share/man/man1 ]] || fail "the manuals of the library, and of no program, are not there"
	grep -q '^CMAKE_BUILD_TYPE' "$scratch/alone/CMakeCache.txt"
	grep -q -- '-O2' "$scratch/alone/compile_commands.json" || fail "the default is a build without optimization"
}

# The library asks for liburing and the C library, and the README's program works with both forms of it.
run_program() {
	local pc library flags
	pc=$(find "$scratch/usr" -name uffdwp.pc)
	library=$(find "$scratch/usr" -name 'libuffdwp.so.0' -o -name 'libuffdwp.so.[1-9]')
	! readelf -d "$library" | grep NEEDED | grep -vE '\[(lib(uring|c|dl|pthread)|ld-[a-z0-9_-]*)\.so' ||
		fail "the library needs more than liburing and the C library"
	export PKG_CONFIG_LIBDIR=$scratch/pkgconfig:${pc%/*} LD_LIBRARY_PATH=${library%/*}
	# shellcheck disable=SC2016 # they are no commands
	sed -n '/^```c$/,/^```$/{/^```/!p;/^```$/q}' README.md >"$scratch/program.c"
	read -ra flags <<<"$(pkg-config --cflags --libs uffdwp)"
	quietly cc "$scratch/program.c" -o "$scratch/shared" "${flags[@]}"
	read -ra flags <<<"$(pkg-config --static --cflags --libs uffdwp)"
	[[ " ${flags[*]} " != *" -lzstd "* && " ${flags[*]} " != *" -lnuma "* && " ${flags[*]} " != *" -ljson-c "* ]] || fail "uffdwp.pc: ${flags[*]}"
	quietly cc -static "$scratch/program.c" -o "$scratch/static" "${flags[@]}"
	for form in shared static; do
		mkdir "$scratch/run-$form"
		(cd "$scratch/run-$form" && "../$form") || fail "the README's program, $form"
		[[ $(stat -c %s "$scratch/run-$form/image.raw") -eq $((1 << 30)) ]] || fail "$form: the image's length"
		[[ $(dd if="$scratch/run-$form/image.raw" bs=1 skip=4096 count=1 status=none) == a ]] || fail "$form: the cut"
		rm "$scratch/run-$form/image.raw"
	done
	unset LD_LIBRARY_PATH
}

expect_advice() {
	local option
	for option in UFFDWP_ZSTD UFFDWP_NUMA UFFDWP_NBD UFFDWP_CONTROL; do
		! cmake -S . -B "$scratch/advice" -DUFFDWP_TESTS=OFF -DUFFDWP_TOOLS=OFF -DUFFDWP_BENCH=OFF "${without[@]}" \
			"-D$option=ON" >"$scratch/log" 2>&1 || fail "$option was configured without its library"
		tr -s ' \n' ' ' <"$scratch/log" | grep -q -- "leave it out with -D$option=OFF" || fail "$option: $(<"$scratch/log")"
		rm -rf "$scratch/advice"
	done
}

# A project that has flags, a standard and an install rule of its own.
build_as_part() {
	mkdir "$scratch/outer"
	cat >"$scratch/outer/CMakeLists.txt" <<END_OF_PROJECT
cmake_minimum_required(VERSION 3.18)
project(outer LANGUAGES C)
set(CMAKE_C_STANDARD 99)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
function(state out)
  set(all "")
  get_cmake_property(names VARIABLES)
  foreach(name \${names})
    if(name MATCHES "^(CMAKE_(C_|BUILD|RUNTIME|LIBRARY|ARCHIVE|POSITION|EXPORT|EXE|SHARED)|BUILD_)"
       AND NOT name MATCHES "COMPILER|IMPLICIT")
      string(APPEND all "\${name}=\${\${name}}\\n")
    endif()
  endforeach()
  get_directory_property(options COMPILE_OPTIONS)
  get_directory_property(definitions COMPILE_DEFINITIONS)
  set(\${out} "\${all}\${options}|\${definitions}" PARENT_SCOPE)
endfunction()
state(before)
add_subdirectory($PWD uffdwp)
state(after)
if(NOT before STREQUAL after)
  message(FATAL_ERROR "the project around was changed:\n\${before}\n----\n\${after}")
endif()
add_executable(with_shared program.c)
target_link_libraries(with_shared uffdwp::shared)
add_executable(with_static program.c)
target_link_libraries(with_static uffdwp::static)
install(TARGETS with_static DESTINATION bin)
END_OF_PROJECT
	cp "$scratch/program.c" "$scratch/outer/"
	quietly cmake -S "$scratch/outer" -B "$scratch/part" -DCMAKE_INSTALL_PREFIX="$scratch/outer-usr" "${without[@]}"
	quietly cmake --build "$scratch/part" -j "$jobs"
	quietly cmake --install "$scratch/part"
	! grep -q Werror "$scratch/part/compile_commands.json" || fail "a sub-project is built with -Werror"
	[[ $(find "$scratch/outer-usr" -type f -printf '%P\n') == bin/with_static ]] || fail "a sub-project was installed"
	(cd "$scratch" && part/with_shared && part/with_static) || fail "a sub-project's programs"
	rm -f "$scratch/image.raw"
}

run_tests() {
	unset PKG_CONFIG_LIBDIR
	quietly cmake -S . -B "$scratch/tests" -DUFFDWP_TOOLS=OFF -DUFFDWP_BENCH=OFF "${without[@]}" -DUFFDWP_TEST_GROUPS=unit
	quietly cmake --build "$scratch/tests" -j "$jobs"
	quietly ctest --test-dir "$scratch/tests" -j "$jobs" --output-on-failure --no-tests=error
	grep '^100% tests passed' "$scratch/log"
}

limit_to liburing libxxhash
install_it
run_program
limit_to liburing libxxhash
expect_advice
build_as_part
run_tests
echo "small: installed, part of another project, and tested, with liburing alone"
