/* SPDX-License-Identifier: MIT */
/* See start.h. */
#include "start.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "access.h"
#include "choice.h"
#include "copy.h"
#include "descriptors.h"
#include "forks.h"
#include "heap.h"
#include "kills.h"
#include "names.h"
#include "raw.h"
#include "reword.h"
#include "say.h"
#include "settings.h"
#include "stop.h"
#include "whole.h"

#define START_GIB ((uint64_t)1 << 30)
#define START_CAPACITY_LEAST (64 * START_GIB)
#define START_CAPACITY_MOST (8192 * START_GIB)
#define START_PARTS 8
#define START_LENGTH ((uint64_t)2 << 20)
#define START_FREE_RANGES ((size_t)1 << 16)
#define START_TEXT_BYTES 400

static _Atomic(int) start_said;
static int start_was_refused;

/* ------------------------------------------------------------------------------------------------- the region -- */

/* A fork needs the region's address space three times for a moment; the program needs some, too. 0: there is no room.
 */
static uint64_t start_limit_capacity(uint64_t bytes)
{
	struct rlimit limit;
	uint64_t most = UINT64_MAX;

	if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		most = limit.rlim_cur / START_PARTS / START_GIB * START_GIB;
	return bytes < most ? bytes : most;
}

static uint64_t start_choose_capacity(void)
{
	struct sysinfo info;
	uint64_t bytes = settings.capacity_bytes;

	if (!bytes && sysinfo(&info) == 0)
		bytes = 2 * (uint64_t)info.mem_unit * (info.totalram + info.totalswap);
	if (!settings.capacity_bytes && bytes < START_CAPACITY_LEAST)
		bytes = START_CAPACITY_LEAST;
	bytes = (bytes + START_GIB - 1) / START_GIB * START_GIB;
	return start_limit_capacity(bytes < START_CAPACITY_MOST ? bytes : START_CAPACITY_MOST);
}

/* An address that is free now and a multiple of a GiB. 0: there is no such address space. */
static uintptr_t start_find_place(uint64_t capacity)
{
	size_t length = capacity + START_GIB;
	void *place = raw_mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (place == MAP_FAILED)
		return 0;
	(void)raw_munmap(place, length);
	return ((uintptr_t)place + START_GIB - 1) & ~(uintptr_t)(START_GIB - 1);
}

static int start_create(uint64_t capacity)
{
	struct uffdwp_region_options options = {.sz = sizeof(options),
	                                        .delivery = settings.delivery,
	                                        .capacity_bytes = capacity,
	                                        .name = "uffdwp-fork"};
	uintptr_t place = start_find_place(capacity);

	if (!place)
		return -ENOMEM;
	options.address = (void *)place; /* NOLINT(performance-no-int-to-ptr) */
	return uffdwp_region_create(heap.runtime, START_LENGTH, &options, &heap.region);
}

/* With less address space where a limit allows no more. */
static int start_create_some(uint64_t *capacity)
{
	int error = start_create(*capacity);

	while ((error == -ENOMEM || error == -EEXIST) && *capacity > START_GIB) {
		*capacity /= 2;
		error = start_create(*capacity);
	}
	return error;
}

static int start_arena(uint64_t capacity)
{
	size_t bytes = START_FREE_RANGES * sizeof(struct arena_range);
	void *room = raw_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room == MAP_FAILED)
		return -ENOMEM;
	arena_init(&heap.arena, capacity, room, START_FREE_RANGES);
	return 0;
}

static int start_own(void)
{
	size_t bytes = heap.page_bytes;
	void *page =
	        heap.own ? heap.own : raw_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -ENOMEM;
	heap.own = page;
	return raw_madvise(page, bytes, MADV_WIPEONFORK) == 0 ? 0 : -errno;
}

/* ---------------------------------------------------------------------------------------------------- refusals -- */

static int start_refuse(int error, const char *why)
{
	char text[START_TEXT_BYTES] = "";
	char said[START_TEXT_BYTES] = "";

	(void)uffdwp_error_text(said, sizeof(said));
	(void)reword(REWORD_FORK, said, text, sizeof(text));
	if (!why[0])
		why = text[0] ? text : strerror(-error);
	start_was_refused = 1;
	say_once(&start_said, "runs without it: %s", why);
	return error;
}

static void start_close(void)
{
	(void)uffdwp_region_close(heap.region);
	(void)uffdwp_close(heap.runtime);
	heap.region = NULL;
	heap.runtime = NULL;
}

/* ---------------------------------------------------------------------------------------------------- the order -- */

/* What a program may close, or hide by chroot(2), later. */
static void start_know_files(void)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	struct stat st;

	heap.proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	heap.fd = uffdwp_region_info(heap.region, &info) == 0 ? info.fd : -1;
	if (heap.fd >= 0 && fstat(heap.fd, &st) == 0)
		heap.inode = st.st_ino;
}

static int start_open(void)
{
	struct uffdwp_options options = {.sz = sizeof(options), .handler_threads = 1};
	char why[START_TEXT_BYTES] = "";
	uint64_t capacity = start_choose_capacity();
	int error = access_check(settings.delivery, why, sizeof(why));

	if (!error && !capacity) {
		error = -ENOMEM;
		(void)snprintf(why, sizeof(why), "the limit of its address space (ulimit -v) is too low");
	}
	if (!error)
		error = uffdwp_open(&options, &heap.runtime);
	if (!error)
		kills_init();
	if (!error)
		error = start_create_some(&capacity);
	if (!error)
		error = forks_try(why, sizeof(why));
	if (!error)
		error = start_arena(capacity);
	if (!error)
		error = start_own();
	if (!error)
		error = stop_init();
	if (!error)
		error = copy_init();
	if (!error)
		error = forks_init();
	if (error) {
		(void)start_refuse(error, why);
		start_close();
		return error;
	}
	start_know_files();
	heap.base = (uintptr_t)uffdwp_region_base(heap.region);
	heap.capacity = capacity;
	atomic_store(&heap.length, START_LENGTH);
	return 0;
}

static void start_serve(void)
{
	sigset_t before;

	heap_is_inside++;
	heap_block_signals(&before);
	descriptors_fill();
	if (start_open() == 0)
		atomic_store(&heap.phase, HEAP_SERVING);
	descriptors_empty();
	heap_restore_signals(&before);
	heap_is_inside--;
}

void start_again(void)
{
	if (atomic_load(&heap.phase) != HEAP_OUT || start_was_refused || !heap.runtime)
		return;
	heap_renew();
	heap.runtime = NULL; /* the parent's */
	heap.region = NULL;
	start_serve();
}

/* A shell that an env(1) has become, say: nothing is started, nor passed on. */
static int start_is_for(const char *program)
{
	return settings.follow || settings.from != SETTINGS_FROM_AUTO || !names_is_shell(program);
}

__attribute__((constructor)) static void start_before_main(void)
{
	const char *program = program_invocation_short_name;
	int error = errno;
	const char *strange;

	if (names_is_launcher(program))
		return;
	say_init();
	strange = settings_read();
	heap.page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	if (strange) {
		say_once(&start_said, "runs without it: %s is not understood", strange);
	} else if (start_is_for(program)) {
		int is_foreign = choice_find();

		whole_init(is_foreign);
		if (!is_foreign)
			say_verbose("covers no memory of malloc(3), which is the C library's: only what other calls of "
			            "mmap(2) map");
		start_serve();
	} else {
		say_once(&start_said, "is a shell, and runs without it: see uffdwp-ctl fork --follow");
	}
	errno = error;
}
