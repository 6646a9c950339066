/* SPDX-License-Identifier: MIT */
/* See choice.h. */
#include "choice.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include "heap.h"
#include "settings.h"

#define CHOICE_OBJECTS 4
#define CHOICE_LEAST_BYTES ((size_t)64 << 10)
#define CHOICE_HUGE_BYTES ((uint64_t)2 << 20)
#define CHOICE_HINT_BYTES ((uint64_t)64 << 20)
#define CHOICE_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK)

struct choice_object {
	uintptr_t start; /* [start, end) */
	uintptr_t end;
};

/* Objects whose mappings go to the region; without any: all of them. */
static struct choice_object choice_objects[CHOICE_OBJECTS];
static size_t choice_count;

struct choice_search {
	const void *address; /* NULL: the program itself, which comes first */
	struct choice_object found;
};

static int choice_look(struct dl_phdr_info *info, size_t size, void *argument)
{
	struct choice_search *search = argument;
	struct choice_object object = {UINTPTR_MAX, 0};
	uintptr_t address = (uintptr_t)search->address;

	(void)size;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + segment->p_vaddr;

		if (segment->p_type != PT_LOAD)
			continue;
		object.start = start < object.start ? start : object.start;
		object.end = start + segment->p_memsz > object.end ? start + segment->p_memsz : object.end;
	}
	if (search->address && (address < object.start || address >= object.end))
		return 0;
	search->found = object;
	return 1;
}

static struct choice_object choice_object_of(const void *address)
{
	struct choice_search search = {.address = address};

	(void)dl_iterate_phdr(choice_look, &search);
	return search.found;
}

static void choice_add(struct choice_object object)
{
	if (object.end && choice_count < CHOICE_OBJECTS)
		choice_objects[choice_count++] = object;
}

/* Where malloc(3) is defined. A program that is linked to a fixed address has an entry of its own under that name,
 * which only leads there. */
static const void *choice_find_malloc(void)
{
	const void *address = dlsym(RTLD_DEFAULT, "malloc");
	const ElfW(Sym) *symbol = NULL;
	Dl_info info;

	if (dladdr1(address, &info, (void **)&symbol, RTLD_DL_SYMENT) && symbol && symbol->st_shndx == SHN_UNDEF)
		return dlsym(RTLD_NEXT, "malloc");
	return address;
}

int choice_find(void)
{
	struct choice_object allocator = choice_object_of(choice_find_malloc());
	struct choice_object libc = choice_object_of(dlsym(RTLD_DEFAULT, "gnu_get_libc_version"));
	int is_foreign = allocator.start != libc.start;

	if (settings.from == SETTINGS_FROM_PROGRAM)
		choice_add(choice_object_of(NULL));
	if (settings.from != SETTINGS_FROM_ALL && is_foreign)
		choice_add(allocator);
	return is_foreign;
}

static int choice_is_allocator(const void *caller)
{
	uintptr_t address = (uintptr_t)caller;
	int known = choice_count == 0;

	for (size_t i = 0; i < choice_count && !known; i++)
		known = address >= choice_objects[i].start && address < choice_objects[i].end;
	return known;
}

/* Counts what stays outside until it is enough. */
static int choice_is_small(uint64_t length)
{
	uint64_t outside = atomic_load(&heap.outside_bytes);

	if (length >= settings.small_bytes || outside >= settings.small_bytes)
		return 0;
	atomic_fetch_add(&heap.outside_bytes, length);
	return 1;
}

/* An allocator that gives hints wants the alignment of the hint, and takes any place that has it. */
static uint64_t choice_align(const void *hint, uint64_t length)
{
	uint64_t alignment = length >= CHOICE_HUGE_BYTES ? CHOICE_HUGE_BYTES : heap.page_bytes;
	uintptr_t address = (uintptr_t)hint;

	while (address && !(address & alignment) && !(address & (alignment - 1)) && alignment < CHOICE_HINT_BYTES)
		alignment <<= 1;
	return alignment;
}

uint64_t choice_make(const void *hint, size_t length, int protection, int flags, const void *caller)
{
	if (atomic_load_explicit(&heap.phase, memory_order_relaxed) != HEAP_SERVING || heap_is_inside)
		return 0;
	if ((flags & ~CHOICE_FLAGS) || !(flags & MAP_PRIVATE) || !(flags & MAP_ANONYMOUS))
		return 0;
	if (protection != (PROT_READ | PROT_WRITE) || length < CHOICE_LEAST_BYTES || length > heap.capacity)
		return 0;
	if ((hint && !settings.hints) || !choice_is_allocator(caller) || choice_is_small(length))
		return 0;
	return choice_align(hint, length);
}
