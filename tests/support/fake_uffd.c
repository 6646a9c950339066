/* SPDX-License-Identifier: MIT */
/* Descriptors of the fake kernel, and the threads that wait in them: see fake.h and fake_private.h. */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fake_private.h"
#include "support.h"

#define UFFDS_MAX 16384

#define FEATURES                                                                                                       \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_SIGBUS | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | \
	 UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_SHMEM |                      \
	 UFFD_FEATURE_MINOR_HUGETLBFS | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED |                \
	 UFFD_FEATURE_EXACT_ADDRESS)

static struct uffd uffds[UFFDS_MAX];
static _Atomic unsigned uffd_count;
static pthread_mutex_t wait_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wait_moved = PTHREAD_COND_INITIALIZER;

/* --- descriptors ------------------------------------------------------------------------------------------------ */

struct uffd *uffd_of(int fd)
{
	for (unsigned i = atomic_load(&uffd_count); i > 0; i--) {
		if (atomic_load(&uffds[i - 1].fd) == fd) {
			return &uffds[i - 1];
		}
	}
	return NULL;
}

int uffd_new(int flags)
{
	(void)flags;
	if (fake_kind_now()->no_userfaultfd) {
		return fake_kind_now()->no_userfaultfd;
	}
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(fd >= 0);
	pthread_mutex_lock(&wait_lock);
	unsigned at = atomic_load(&uffd_count);
	must(at < UFFDS_MAX);
	atomic_store(&uffds[at].fd, fd);
	atomic_store(&uffd_count, at + 1);
	pthread_mutex_unlock(&wait_lock);
	return fd;
}

int uffd_no_device(int flags)
{
	(void)flags;
	return -ENOENT;
}

int uffd_negotiate(int fd, uint64_t *features)
{
	if ((*features & ~(uint64_t)FEATURES) != 0) {
		return -EINVAL;
	}
	struct uffd *uffd = uffd_of(fd);
	if (uffd == NULL) {
		return -EBADF;
	}
	uffd->features = *features;
	*features = FEATURES;
	return 0;
}

void uffd_close(struct uffd *uffd)
{
	pthread_mutex_lock(&wait_lock);
	atomic_store(&uffd->fd, -1);
	pthread_cond_broadcast(&wait_moved);
	pthread_mutex_unlock(&wait_lock);
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

static void append(struct waiter **list, struct waiter *waiter)
{
	while (*list != NULL) {
		list = &(*list)->next;
	}
	*list = waiter;
}

static void unlink_waiter(struct waiter **list, const struct waiter *waiter)
{
	while (*list != NULL && *list != waiter) {
		list = &(*list)->next;
	}
	if (*list != NULL) {
		*list = waiter->next;
	}
}

/* Under wait_lock, as is the draining: the eventfd is readable when there is something to read. */
static void make_readable(const struct uffd *uffd)
{
	static const uint64_t one = 1;
	if (atomic_load(&uffd->fd) >= 0) {
		must(write(atomic_load(&uffd->fd), &one, sizeof(one)) == sizeof(one));
	}
}

static void make_unreadable(const struct uffd *uffd)
{
	uint64_t ignored;
	must(read(atomic_load(&uffd->fd), &ignored, sizeof(ignored)) > 0 || errno == EAGAIN);
}

void uffd_wake(struct uffd *uffd, uint64_t start, uint64_t length)
{
	/* A waiter counts itself before it looks at the entry, which was changed before this. */
	if (atomic_load(&uffd->waiting) == 0) {
		return;
	}
	pthread_mutex_lock(&wait_lock);
	for (struct waiter *waiter = uffd->faults; waiter != NULL; waiter = waiter->next) {
		uint64_t address = waiter->message.arg.pagefault.address;
		waiter->woken |= address >= start && address < start + length;
	}
	pthread_cond_broadcast(&wait_moved);
	pthread_mutex_unlock(&wait_lock);
}

int uffd_wake_range(int fd, uint64_t start, uint64_t length)
{
	struct uffd *uffd = uffd_of(fd);
	if (uffd == NULL) {
		return -EBADF;
	}
	uffd_wake(uffd, start, length);
	return 0;
}

void uffd_report(struct uffd *uffd, struct waiter *waiter)
{
	atomic_fetch_add(&uffd->changing, 1);
	pthread_mutex_lock(&wait_lock);
	append(&uffd->events, waiter);
	make_readable(uffd);
	while (!waiter->read && atomic_load(&uffd->fd) >= 0) {
		pthread_cond_wait(&wait_moved, &wait_lock);
	}
	unlink_waiter(&uffd->events, waiter);
	pthread_mutex_unlock(&wait_lock);
	atomic_fetch_sub(&uffd->changing, 1);
}

static uint64_t flags_of(enum stop stop, int write)
{
	uint64_t flags = write ? UFFD_PAGEFAULT_FLAG_WRITE : 0;
	if (stop == STOP_WP) {
		flags |= UFFD_PAGEFAULT_FLAG_WP;
	}
	return stop == STOP_MINOR ? flags | UFFD_PAGEFAULT_FLAG_MINOR : flags;
}

void uffd_sleep(const struct range *range, struct page *page, uint64_t address, enum stop stop, int write)
{
	struct uffd *uffd = range->uffd;
	struct waiter waiter = {.message = {.event = UFFD_EVENT_PAGEFAULT}};
	waiter.message.arg.pagefault.address = address;
	waiter.message.arg.pagefault.flags = flags_of(stop, write);
	pthread_mutex_lock(&wait_lock);
	atomic_fetch_add(&uffd->waiting, 1);
	append(&uffd->faults, &waiter);
	make_readable(uffd);
	pthread_mutex_unlock(&wait_lock);
	int stopped = table_look(range, page, write) == stop;
	pthread_mutex_lock(&wait_lock);
	while (stopped && !waiter.woken) {
		pthread_cond_wait(&wait_moved, &wait_lock);
	}
	unlink_waiter(&uffd->faults, &waiter);
	atomic_fetch_sub(&uffd->waiting, 1);
	pthread_mutex_unlock(&wait_lock);
}

unsigned fake_asleep(void)
{
	unsigned asleep = 0;
	pthread_mutex_lock(&wait_lock);
	for (unsigned i = 0; i < atomic_load(&uffd_count); i++) {
		for (const struct waiter *waiter = uffds[i].faults; waiter != NULL; waiter = waiter->next) {
			asleep += waiter->read && !waiter->woken;
		}
	}
	pthread_mutex_unlock(&wait_lock);
	return asleep;
}

/* --- messages --------------------------------------------------------------------------------------------------- */

static size_t take_unread(struct waiter *list, struct uffd_msg *messages, size_t room)
{
	size_t count = 0;
	for (struct waiter *waiter = list; waiter != NULL && count < room; waiter = waiter->next) {
		if (!waiter->read && !waiter->woken) {
			waiter->read = 1;
			messages[count++] = waiter->message;
		}
	}
	return count;
}

ssize_t uffd_read_messages(int fd, struct uffd_msg *messages, size_t room)
{
	const struct fake_hooks *hook = fake_hooks_now();
	if (hook->reading != NULL) {
		hook->reading(hook->user);
	}
	struct uffd *uffd = uffd_of(fd);
	if (uffd == NULL) {
		return -EBADF;
	}
	pthread_mutex_lock(&wait_lock);
	size_t count = take_unread(uffd->faults, messages, room);
	count += take_unread(uffd->events, messages + count, room - count);
	if (count < room) {
		make_unreadable(uffd);
	}
	pthread_cond_broadcast(&wait_moved);
	pthread_mutex_unlock(&wait_lock);
	if (count > 0 && hook->has_read != NULL) {
		hook->has_read(hook->user);
	}
	return count > 0 ? (ssize_t)(count * sizeof(messages[0])) : -EAGAIN;
}
