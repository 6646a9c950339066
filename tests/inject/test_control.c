/* SPDX-License-Identifier: MIT */
/*
 * Control with a kernel that refuses the n-th call, for every n: a runtime opens with its socket or is refused, a
 * client is answered or its connection is closed, and nothing is left. And with one in which a client's requests, and
 * those that come and are gone again, never end.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api.h"
#include "chance.h"
#include "kernel/kernel.h"
#include "refusing.h"
#include "scratch.h"
#include "support.h"

#define MOST_CALLS 5000
#define REGION_BYTES (64 * 4096)

static char folder[SCRATCH_PATH];
static char path[SCRATCH_PATH];

static int connect_here(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && strlen(path) < sizeof(address.sun_path));
	memcpy(address.sun_path, path, strlen(path));
	must(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

/* Two requests on a connection of its own: what comes back, a line each, or nothing. */
static void ask(const char *requests)
{
	char byte;
	int lines = 0;
	int fd = connect_here();
	(void)send(fd, requests, strlen(requests), MSG_NOSIGNAL);
	while (lines < 2 && recv(fd, &byte, 1, 0) == 1)
		lines += byte == '\n';
	close(fd);
}

static void use(struct uffdwp *runtime)
{
	struct uffdwp_region *region = NULL;
	if (uffdwp_region_create(runtime, REGION_BYTES, NULL, &region) != 0)
		return;
	ask("{\"v\":1,\"do\":\"list\"}\n{\"v\":1,\"do\":\"stat\"}\n");
	ask("{\"v\":1,\"do\":\"arm\",\"region\":1}\n{\"v\":1,\"do\":\"trace\",\"seconds\":1}\n");
	int error = uffdwp_region_close(region);
	must(error == 0 || uffdwp_region_close(region) == 0);
}

/* How many calls were refused. */
static uint64_t once(uint64_t nth)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp *runtime = NULL;
	options.flags = UFFDWP_OPEN_CONTROL;
	options.control = UFFDWP_CONTROL_LOOK | UFFDWP_CONTROL_SNAPSHOT | UFFDWP_CONTROL_ARM;
	options.control_path = path;
	refusing_set(&(struct refusal){REFUSING_ALL, nth, 1, 0});
	int error = api_open(&kernel_refusing, &options, &runtime);
	must(error <= 0 && (error == 0) == (runtime != NULL));
	if (!error) {
		use(runtime);
		must(uffdwp_close(runtime) == 0);
	}
	uint64_t refused = refusing_refused();
	refusing_stop();
	(void)unlink(path); /* the removal itself may have been refused */
	return refused;
}

START_TEST(test_control_survives_every_refusal)
{
	uint64_t step = support_rounds(7, 1);
	(void)once(0);
	size_t files = scratch_open_files();
	uint64_t nth = 1;
	while (nth < MOST_CALLS && once(nth) != 0) {
		ck_assert_uint_eq(scratch_open_files(), files);
		nth += step > 1 ? 1 + chance_seed() % step : 1;
	}
	ck_assert_uint_lt(nth, MOST_CALLS);
	ck_assert_uint_gt(nth, 50);
	printf("%llu calls\n", (unsigned long long)nth);
}
END_TEST

/* --- without end ---------------------------------------------------------------------------------------------- */

static struct kernel_ops endless;
static _Atomic int endless_fd = -1;      /* the first client's: it can always be read, and takes all answers */
static _Atomic uint64_t endless_answers; /* which it got */
static _Atomic int endless_accepts;      /* a client that connects has gone again, and the next one is there */
static _Atomic uint64_t endless_gone;

static ssize_t endless_read(int fd, void *buffer, size_t length)
{
	static const char line[] = "{\"v\":1,\"do\":\"hello\"}\n";
	static size_t at; /* read by one thread */
	if (fd != atomic_load(&endless_fd))
		return kernel_real.read(fd, buffer, length);
	for (size_t i = 0; i < length; i++)
		((char *)buffer)[i] = line[at++ % (sizeof(line) - 1)];
	return (ssize_t)length;
}

static ssize_t endless_write(int fd, const void *buffer, size_t length)
{
	if (fd != atomic_load(&endless_fd))
		return kernel_real.write(fd, buffer, length);
	atomic_fetch_add(&endless_answers, memchr(buffer, '\n', length) != NULL);
	return (ssize_t)length;
}

static int endless_accept(int fd, uint32_t *uid)
{
	int none = -1;
	if (atomic_load(&endless_accepts)) {
		atomic_fetch_add(&endless_gone, 1);
		return -ECONNABORTED;
	}
	int client = kernel_real.accept(fd, uid);
	if (client >= 0)
		atomic_compare_exchange_strong(&endless_fd, &none, client);
	return client;
}

/* Returns when the whole answer is there. */
static void ask_hello(int fd)
{
	static const char line[] = "{\"v\":1,\"do\":\"hello\"}\n";
	char byte = 0;
	must(send(fd, line, sizeof(line) - 1, MSG_NOSIGNAL) == (ssize_t)sizeof(line) - 1);
	while (byte != '\n')
		must(recv(fd, &byte, 1, 0) == 1);
}

static int has_moved(void *argument)
{
	return atomic_load((_Atomic uint64_t *)argument) > 1000;
}

START_TEST(test_what_never_ends_keeps_nobody_waiting)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp *runtime = NULL;
	endless = kernel_real;
	endless.read = endless_read;
	endless.write = endless_write;
	endless.accept = endless_accept;
	options.flags = UFFDWP_OPEN_CONTROL;
	options.control_path = path;
	ck_assert_int_eq(api_open(&endless, &options, &runtime), 0);
	int first = connect_here();
	ck_assert(wait_until(has_moved, &endless_answers, 60));
	int second = connect_here();
	for (int i = 0; i < 20; i++)
		ask_hello(second);
	atomic_store(&endless_accepts, 1);
	int third = connect_here();
	ck_assert(wait_until(has_moved, &endless_gone, 60));
	uint64_t answers = atomic_load(&endless_answers);
	for (int i = 0; i < 20; i++)
		ask_hello(second);
	ck_assert_uint_gt(atomic_load(&endless_answers), answers);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	close(first);
	close(second);
	close(third);
}
END_TEST

static void setup(void)
{
	scratch_folder(folder);
	scratch_join(path, folder, "c.sock");
}

int main(void)
{
	support_begin("test_control", &(struct support_needs){0, 0});
	if (!(uffdwp_built() & UFFDWP_BUILT_CONTROL))
		return support_skip("the library was built without json-c");
	Suite *suite = suite_create("control");
	TCase *tests = tcase_create("control");
	tcase_set_timeout(tests, 900);
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_test(tests, test_control_survives_every_refusal);
	tcase_add_test(tests, test_what_never_ends_keeps_nobody_waiting);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
