/* SPDX-License-Identifier: MIT */
/*
 * Control with a kernel that refuses the n-th call, for every n: a runtime opens with its socket or is refused, a
 * client is answered or its connection is closed, and nothing is left.
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api.h"
#include "chance.h"
#include "refusing.h"
#include "scratch.h"
#include "support.h"

#define MOST_CALLS 5000
#define REGION_BYTES (64 * 4096)

static char folder[SCRATCH_PATH];
static char path[SCRATCH_PATH];

/* Two requests on a connection of its own: what comes back, a line each, or nothing. */
static void ask(const char *requests)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char byte;
	int lines = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && strlen(path) < sizeof(address.sun_path));
	memcpy(address.sun_path, path, strlen(path));
	must(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
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
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
