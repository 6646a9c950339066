/* SPDX-License-Identifier: MIT */
/*
 * A plugin that uses the library is loaded, used, and unloaded; then the program has a fault of its own. The library's
 * signal handler, which belongs to the process, is still there.
 */
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "catch.h"
#include "place.h"
#include "support.h"

struct plugin {
	void *handle;
	int (*open)(const struct uffdwp_options *, struct uffdwp **);
	int (*create)(struct uffdwp *, size_t, const struct uffdwp_region_options *, struct uffdwp_region **);
	int (*arm)(struct uffdwp_region *, uint64_t, uint64_t);
	void *(*base)(const struct uffdwp_region *);
	int (*close_region)(struct uffdwp_region *);
	int (*close)(struct uffdwp *);
};

/* A function has no place in a void *, as C sees it: POSIX says that it has. */
static void find(const struct plugin *plugin, const char *name, void *function)
{
	void *found = dlsym(plugin->handle, name);
	ck_assert_ptr_nonnull(found);
	memcpy(function, &found, sizeof(found));
}

static struct plugin plugin_load(void)
{
	struct plugin plugin = {.handle = dlopen(getenv("UFFDWP_SHARED"), RTLD_NOW | RTLD_LOCAL)};
	ck_assert_ptr_nonnull(plugin.handle);
	find(&plugin, "uffdwp_open", &plugin.open);
	find(&plugin, "uffdwp_region_create", &plugin.create);
	find(&plugin, "uffdwp_region_arm", &plugin.arm);
	find(&plugin, "uffdwp_region_base", &plugin.base);
	find(&plugin, "uffdwp_region_close", &plugin.close_region);
	find(&plugin, "uffdwp_close", &plugin.close);
	return plugin;
}

static void plugin_use(const struct plugin *plugin, enum uffdwp_mechanism mechanism)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.mechanism = mechanism;
	options.delivery = UFFDWP_DELIVERY_INLINE;
	size_t length = place_page_bytes(UFFDWP_MEMORY_SHMEM);
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	ck_assert_int_eq(plugin->open(NULL, &runtime), 0);
	ck_assert_int_eq(plugin->create(runtime, length, &options, &region), 0);
	ck_assert_int_eq(plugin->arm(region, 0, length), 0);
	*(volatile char *)plugin->base(region) = 1;
	ck_assert_int_eq(plugin->close_region(region), 0);
	ck_assert_int_eq(plugin->close(runtime), 0);
}

START_TEST(test_faults_of_the_program_are_its_own_after_the_library_was_unloaded)
{
	struct place_case which = {UFFDWP_MEMORY_SHMEM, (enum uffdwp_mechanism)(UFFDWP_MECHANISM_MARKER + _i),
	                           UFFDWP_DELIVERY_INLINE};
	if (!place_possible(which)) {
		return;
	}
	catch_install(SIGSEGV, 1);
	catch_install(SIGBUS, 1);
	volatile char *guard = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	volatile char *beyond = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memfd_create("short", 0), 0);
	must(guard != MAP_FAILED && beyond != MAP_FAILED);
	for (int round = 0; round < 2; round++) {
		struct plugin plugin = plugin_load();
		plugin_use(&plugin, which.mechanism);
		ck_assert_int_eq(dlclose(plugin.handle), 0);
	}
	if (sigsetjmp(catch_jump, 1) == 0) {
		*guard = 1;
	}
	if (sigsetjmp(catch_jump, 1) == 0) {
		*beyond = 1;
	}
	ck_assert_int_eq(catch_count, 2);
}
END_TEST

int main(void)
{
	support_begin("test_unload", &(struct support_needs){0});
	place_begin();
	const char *sanitizers = getenv("UFFDWP_SANITIZE");
	if (!getenv("UFFDWP_SHARED") || (sanitizers && *sanitizers)) {
		return support_skip("the shared library was not built, or wants a sanitizer's runtime first");
	}
	Suite *suite = suite_create("unload");
	TCase *tests = tcase_create("unload");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_faults_of_the_program_are_its_own_after_the_library_was_unloaded, 0,
	                    PLACE_MECHANISMS);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
