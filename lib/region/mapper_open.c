/* SPDX-License-Identifier: MIT */
/* How mappers come and go; see mapper.h. Threads: callers'; the region's lock is held, or the region is not known yet.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "kernel/abi.h"
#include "kernel/own.h"
#include "kernel/procfs.h"
#include "region/mapper.h"

static int mapper_open_collide(const struct uffdwp_mapping *one, const struct uffdwp_mapping *other)
{
	return (one->offset < other->offset + other->length && other->offset < one->offset + one->length) ||
	       (one->address < other->address + other->length && other->address < one->address + one->length);
}

static int mapper_open_check_one(const struct uffdwp_mapping *mapping, uint64_t length_bytes, uint64_t page_bytes)
{
	return mapping->length && math_is_aligned(mapping->address, page_bytes) &&
	       math_is_aligned(mapping->offset, page_bytes) && math_is_aligned(mapping->length, page_bytes) &&
	       mapping->offset < length_bytes && mapping->length <= length_bytes - mapping->offset &&
	       mapping->address && mapping->address + mapping->length > mapping->address;
}

int mapper_check(const struct mapper_plan *plan, uint64_t length_bytes, uint64_t page_bytes, struct text *text)
{
	for (unsigned i = 0; i < plan->count; i++) {
		const struct uffdwp_mapping *mapping = &plan->mappings[i];

		if (!mapper_open_check_one(mapping, length_bytes, page_bytes))
			return text_fail(text, -EINVAL,
			                 "mapping %u (%llu bytes at %#llx, offset %llu) is not of whole pages of %llu "
			                 "bytes, or reaches beyond the region's %llu",
			                 i, (unsigned long long)mapping->length, (unsigned long long)mapping->address,
			                 (unsigned long long)mapping->offset, (unsigned long long)page_bytes,
			                 (unsigned long long)length_bytes);
		for (unsigned other = 0; other < i; other++) {
			if (mapper_open_collide(mapping, &plan->mappings[other]))
				return text_fail(text, -EINVAL, "mappings %u and %u overlap", other, i);
		}
	}
	return 0;
}

/* A duplicate that is ours. */
static int mapper_open_take(struct mapper *mapper, int fd, const char *what, int *out)
{
	const struct uffdwp_region *region = mapper->region;

	*out = region->k->dup(fd, 0);
	if (*out < 0)
		return text_fail(region->text, *out, "%s %d cannot be duplicated: %s", what, fd, errno_text(*out));
	if (!own_take(region->k, *out, mapper->tag))
		return 0;
	*out = -1;
	return text_fail(region->text, -ENOMEM, "no memory for a descriptor");
}

/* The mapper's UFFDIO_API, as the kernel shows it of our duplicate ("API:\taa:FEATURES:..."). 0: not known. */
static uint64_t mapper_open_features(const struct mapper *mapper)
{
	char path[64];
	char text[256] = "";

	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", mapper->uffd);
	if (procfs_text(mapper->region->k, path, text, sizeof(text)) < 0)
		return 0;
	const char *api = strstr(text, "API:");
	const char *features = api ? strchr(api + strlen("API:"), ':') : NULL;

	return features ? strtoull(features + 1, NULL, 16) : 0;
}

/* With these the kernel resolves its faults otherwise, and no event comes. */
static int mapper_open_check_features(const struct mapper *mapper)
{
	uint64_t features = mapper_open_features(mapper);
	const char *which = features & UFFD_FEATURE_SIGBUS     ? "UFFD_FEATURE_SIGBUS"
	                    : features & UFFD_FEATURE_WP_ASYNC ? "UFFD_FEATURE_WP_ASYNC"
	                                                       : NULL;

	return which ? text_fail(mapper->region->text, -EOPNOTSUPP,
	                         "the process's userfaultfd has %s, so that its writes would not be reported", which)
	             : 0;
}

/* Before it gets our tag. */
static int mapper_open_check_unused(const struct uffdwp_region *region, int uffd)
{
	return region->k->tagged(uffd) > 0
	               ? text_fail(region->text, -EBUSY,
	                           "userfaultfd %d serves another region, or F_SETSIG was called on "
	                           "it: one serves one region",
	                           uffd)
	               : 0;
}

static int mapper_open_explain(const struct mapper *mapper, int error)
{
	struct text *text = mapper->region->text;

	switch (error) {
	case -ENOTTY:
		return text_fail(text, error, "descriptor %d is no userfaultfd", mapper->uffd);
	case -ENOENT:
		return text_fail(text, error, "the process has not mapped all of that, or not by this userfaultfd");
	case -ESRCH:
		return text_fail(text, error, "the process has ended");
	case -EBUSY:
		return text_fail(text, error, "another userfaultfd is registered there");
	case -EINVAL:
		if (mapper->region->is_private)
			return text_fail(text, -EOPNOTSUPP,
			                 "the process's userfaultfd cannot serve what is mapped there, if anything is: "
			                 "it has to be private anonymous memory, of system pages or of huge pages as "
			                 "huge_page_bytes has it");
		return text_fail(
		        text, -EOPNOTSUPP,
		        "the process's userfaultfd cannot protect what is mapped there, if anything is: it has to "
		        "be shared memory, and UFFDIO_API has to ask for UFFD_FEATURE_WP_HUGETLBFS_SHMEM "
		        "(Linux 5.19)");
	default:
		return error ? text_fail(text, error, "the process's memory cannot be protected: %s", errno_text(error))
		             : 0;
	}
}

/* Which pages private memory is made of shows in what the kernel says to a copy from where nothing can be read: it
 * looks at the target first. 0 or -EINVAL; also 0 where a thread there waits until an event of its own is read. */
static int mapper_open_check_pages(const struct mapper *mapper, const struct uffdwp_mapping *mapping)
{
	const struct uffdwp_region *region = mapper->region;
	const void *unreadable = region_address(region, 0);
	uint64_t system_page = (uint64_t)sysconf(_SC_PAGESIZE);
	int whole = region->k->uffd_copy(mapper->uffd, mapping->address, unreadable, region->page_bytes,
	                                 UFFDIO_COPY_MODE_DONTWAKE);
	int half = region->page_bytes == system_page
	                   ? -EINVAL
	                   : region->k->uffd_copy(mapper->uffd, mapping->address, unreadable, region->page_bytes / 2,
	                                          UFFDIO_COPY_MODE_DONTWAKE);

	if (whole == -ENOENT || whole == -ESRCH)
		return whole;
	if (whole != -EINVAL && (half == -EINVAL || half == -EAGAIN))
		return 0;
	return text_fail(region->text, -EINVAL,
	                 "what the process has mapped at %#llx is not of pages of %llu bytes: huge_page_bytes of the "
	                 "options is the size of its huge pages, or 0",
	                 (unsigned long long)mapping->address, (unsigned long long)region->page_bytes);
}

/* Registered once more, if it is: the kernel says whether it can be. What was registered here is taken back. */
static int mapper_open_try_private(struct mapper *mapper)
{
	struct uffdwp_region *region = mapper->region;
	int error = region->k->change_flags(mapper->uffd, O_NONBLOCK, 0);

	for (unsigned i = 0; i < mapper->count && !error; i++) {
		const struct uffdwp_mapping *mapping = &mapper->mappings[i];

		error = region->k->uffd_register(mapper->uffd, mapping->address, mapping->length,
		                                 UFFDIO_REGISTER_MODE_MISSING);
		if (error)
			error = mapper_open_explain(mapper, error);
		else
			error = mapper_open_check_pages(mapper, mapping);
	}
	if (error)
		mapper_release(mapper);
	return error;
}

/* To unprotect what is not protected shows whether it can be. */
static int mapper_open_try(struct mapper *mapper, uint64_t modes)
{
	int error = mapper->region->k->change_flags(mapper->uffd, O_NONBLOCK, 0);

	if (!error && mapper->is_registered && modes != UFFDIO_REGISTER_MODE_WP)
		return text_fail(mapper->region->text, -EINVAL,
		                 "mechanism rearm registers for more than write protection: leave "
		                 "UFFDWP_MAPPER_REGISTERED out");
	return mapper_open_explain(mapper, error ? error : mapper_try_modes(mapper, modes));
}

static struct mapper *mapper_open_free_slot(struct uffdwp_region *region)
{
	for (unsigned i = 0; i < UFFDWP_MAPPERS_MAX; i++) {
		if (!atomic_load(&region->mappers->at[i].used))
			return &region->mappers->at[i];
	}
	return NULL;
}

static void mapper_open_close_descriptors(struct mapper *mapper)
{
	const struct kernel_ops *k = mapper->region->k;

	if (mapper->uffd >= 0 && own_check(k, mapper->uffd, mapper->tag) == 0) {
		(void)k->tag(mapper->uffd, 0); /* the other process may hand it out again */
		k->close(mapper->uffd);
	}
	own_close(k, mapper->pidfd, mapper->tag);
	mapper->uffd = -1;
	mapper->pidfd = -1;
	atomic_store(&mapper->used, 0);
}

int mapper_open(struct uffdwp_region *region, const struct mapper_plan *plan, struct mapper **out)
{
	struct mapper *mapper = mapper_open_free_slot(region);

	if (!mapper)
		return text_fail(region->text, -EMFILE, "%d processes map the region, which is all there may be",
		                 UFFDWP_MAPPERS_MAX);
	mapper->region = region;
	mapper->tag = region->tag;
	mapper->uffd = -1;
	mapper->pidfd = -1;
	mapper->is_registered = plan->is_registered;
	mapper->count = plan->count;
	memcpy(mapper->mappings, plan->mappings, sizeof(mapper->mappings));
	int error = mapper_open_check_unused(region, plan->uffd);

	if (!error)
		error = mapper_open_take(mapper, plan->uffd, "uffd", &mapper->uffd);
	if (!error)
		error = mapper_open_check_features(mapper);
	if (!error && plan->pidfd >= 0)
		error = mapper_open_take(mapper, plan->pidfd, "pidfd", &mapper->pidfd);
	if (!error)
		error = region->is_private ? mapper_open_try_private(mapper)
		                           : mapper_open_try(mapper, region->mechanism->register_modes[region->memory]);
	if (error) {
		mapper_open_close_descriptors(mapper);
		return error;
	}
	unsigned number = (unsigned)(mapper - region->mappers->at);

	atomic_store(&mapper->gone, 0);
	atomic_store(&mapper->used, 1);
	if (number >= atomic_load(&region->mappers->end))
		atomic_store(&region->mappers->end, number + 1);
	*out = mapper;
	return 0;
}

int region_refuse_private(const struct uffdwp_region *region, struct text *text)
{
	return region->is_private
	               ? text_fail(text, -EOPNOTSUPP,
	                           "the region's memory is another process's alone, and has no memfd by which this "
	                           "process could read, protect or discard it: it can be restored lazily, and no "
	                           "more. Have that process map a memfd, and adopt the region by it")
	               : 0;
}

void mapper_close(struct mapper *mapper)
{
	atomic_store(&mapper->gone, 1);
	mapper_release(mapper);
	mapper_open_close_descriptors(mapper);
}

void mappers_free(struct uffdwp_region *region)
{
	for (unsigned i = 0; region->mappers && i < atomic_load(&region->mappers->end); i++) {
		if (atomic_load(&region->mappers->at[i].used))
			mapper_open_close_descriptors(&region->mappers->at[i]);
	}
	pages_free(region->k, region->mappers, sizeof(*region->mappers));
}

void mappers_close_in_child(const struct uffdwp_region *region)
{
	for (unsigned i = 0; i < atomic_load(&region->mappers->end); i++) {
		const struct mapper *mapper = &region->mappers->at[i];

		if (!atomic_load(&mapper->used))
			continue;
		own_close(&kernel_real, mapper->uffd, mapper->tag);
		own_close(&kernel_real, mapper->pidfd, mapper->tag);
	}
}
