/* SPDX-License-Identifier: MIT */
/*
 * Control of a live process, by a client in this process: what it reads is what the interface says, what it has done is
 * done, also while regions come and go. A client that never reads stops no writer.
 */
#include "support.h"

#if SUPPORT_CONTROL
#include "chance.h"
#include "shadow.h"
#include "test_control.h"

/* --- looking -------------------------------------------------------------------------------------------------- */

START_TEST(test_a_client_reads_what_the_interface_says)
{
	struct json_object *answer = ask_well("\"do\":\"hello\"");
	ck_assert_uint_eq(number(answer, "pid"), (uint64_t)getpid());
	ck_assert_uint_eq(number(answer, "schema"), 1);
	ck_assert_uint_eq(json_object_array_length(member(answer, "allowed")), 3);
	ck_assert_str_eq(words(answer, "version"), uffdwp_version());
	json_object_put(answer);

	struct uffdwp_region_info info = {.sz = sizeof(info)};
	char address[32];
	ck_assert_int_eq(uffdwp_region_info(place.region, &info), 0);
	(void)snprintf(address, sizeof(address), "0x%llx", (unsigned long long)(uintptr_t)info.base);
	answer = ask_well("\"do\":\"list\"");
	struct json_object *region = first_region(answer);
	ck_assert_str_eq(words(region, "memory"), "shmem");
	ck_assert_str_eq(words(region, "mechanism"), place_mechanism_name((enum uffdwp_mechanism)info.mechanism));
	ck_assert_str_eq(words(region, "delivery"), place_delivery_name((enum uffdwp_delivery)info.delivery));
	ck_assert_str_eq(words(region, "address"), address);
	ck_assert_uint_eq(number(region, "length"), info.length_bytes);
	ck_assert_str_eq(words(region, "state"), "live");
	ck_assert_uint_eq(json_object_array_length(member(answer, "runtimes")), 1);
	json_object_put(answer);

	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	memset(place.base, 2, 3 * place.page_bytes);
	ck_assert_int_eq(uffdwp_region_stats(place.region, &stats), 0);
	answer = ask_well("\"do\":\"stat\",\"region\":1");
	region = first_region(answer);
	ck_assert_uint_eq(number(region, "faults"), stats.faults);
	ck_assert_uint_eq(number(region, "pages_disarmed"), stats.pages_disarmed);
	ck_assert_uint_eq(number(region, "armed_pages"), place.pages - 3);
	json_object_put(answer);
	expect_refused("\"do\":\"stat\",\"region\":2", "ESRCH");
	close_place_now();
}
END_TEST

/* More than are counted at a stretch. */
#define DIRTY_PAGES (4096 + 100)

static struct uffdwp_snapshot *keep_one(struct uffdwp_region *region)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	char image[SCRATCH_PATH];
	scratch_join(image, folder, "kept.img");
	options.path = image;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	return snapshot;
}

/* -1: it is not known. */
static int64_t dirty_pages(void)
{
	struct json_object *answer = ask_well("\"do\":\"stat\",\"region\":2");
	struct json_object *dirty = NULL;
	must(json_object_object_get_ex(first_region(answer), "dirty_pages", &dirty) == 1);
	int64_t count = dirty ? json_object_get_int64(dirty) : -1;
	json_object_put(answer);
	return count;
}

static void *count_dirty_for_ever(void *argument)
{
	_Atomic int *stop = argument;
	while (!atomic_load(stop))
		must(dirty_pages() <= DIRTY_PAGES);
	return NULL;
}

START_TEST(test_dirty_pages_are_counted_while_snapshots_come_and_go)
{
	static const size_t written[] = {0, 63, 64, 4095, 4096, DIRTY_PAGES - 1};
	struct uffdwp_region *region;
	_Atomic int stop = 0;
	ck_assert_int_eq(uffdwp_region_create(place.runtime, DIRTY_PAGES * place.page_bytes, NULL, &region), 0);
	volatile uint8_t *base = uffdwp_region_base(region);
	ck_assert_int_eq(dirty_pages(), -1);
	struct uffdwp_snapshot *snapshot = keep_one(region);
	ck_assert_int_eq(dirty_pages(), -1);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	ck_assert_int_eq(dirty_pages(), 0);
	for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++) {
		base[written[i] * place.page_bytes] = 5;
		ck_assert_int_eq(dirty_pages(), (int64_t)i + 1);
	}
	pthread_t thread = thread_start(count_dirty_for_ever, &stop);
	for (unsigned round = 0; round < support_rounds(50, 1000); round++) {
		for (size_t i = 0; i < 64; i++)
			base[(round * 64 + i) % DIRTY_PAGES * place.page_bytes] = (uint8_t)round;
		ck_assert_int_eq(uffdwp_snapshot_free(keep_one(region)), 0);
	}
	atomic_store(&stop, 1);
	thread_join(thread);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	close_place_now();
}
END_TEST

static uint64_t latencies(struct json_object *region, const char *which, uint64_t *sum)
{
	struct json_object *histogram = member(member(region, "latency"), which);
	struct json_object *buckets = member(histogram, "buckets");
	uint64_t count = 0;
	for (size_t i = 0; i < json_object_array_length(buckets); i++) {
		struct json_object *bucket = json_object_array_get_idx(buckets, i);
		count += (uint64_t)json_object_get_int64(json_object_array_get_idx(bucket, 1));
	}
	ck_assert_uint_eq(count, number(histogram, "count"));
	ck_assert_uint_le(number(histogram, "p50_ns"), number(histogram, "p99_ns"));
	ck_assert_uint_le(number(histogram, "p999_ns"), number(histogram, "max_ns"));
	*sum += number(histogram, "sum_ns");
	return count;
}

/* 1: as many as there were faults: a handler adds to them after it has resumed the writer. */
static int latencies_are_there(void *argument)
{
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	uint64_t sum = 0;
	struct json_object *answer = ask_well("\"do\":\"stat\"");
	uint64_t count = latencies(first_region(answer), argument, &sum);
	ck_assert_int_eq(uffdwp_region_stats(place.region, &stats), 0);
	json_object_put(answer);
	return count == stats.faults;
}

static void *write_pages(void *argument)
{
	size_t first = *(const size_t *)argument;
	for (size_t page = first; page < place.pages; page += 4)
		((volatile uint8_t *)place.base)[page * place.page_bytes] = 3;
	return NULL;
}

/* Threads meet pages that another saves, faults that are stalled by cuts, and each other. */
static void fault_by_four(unsigned rounds)
{
	size_t firsts[4] = {0, 1, 2, 3};
	pthread_t threads[4];
	for (unsigned round = 0; round < rounds; round++) {
		ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
		for (int i = 0; i < 4; i++)
			threads[i] = thread_start(write_pages, &firsts[i]);
		ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
		for (int i = 0; i < 4; i++)
			thread_join(threads[i]);
	}
}

START_TEST(test_each_fault_has_its_latency)
{
	struct place_case which = place_case(_i);
	if (which.memory != UFFDWP_MEMORY_SHMEM || which.mechanism != UFFDWP_MECHANISM_MARKER || !place_possible(which))
		return;
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	int is_inline = which.delivery == UFFDWP_DELIVERY_INLINE;
	uint64_t sum = 0;
	open_place(which.delivery, 0);
	fault_by_four(support_rounds(20, 200));
	char kind[8];
	(void)snprintf(kind, sizeof(kind), "%s", is_inline ? "inline" : "thread");
	ck_assert(wait_until(latencies_are_there, kind, 20));
	ck_assert_int_eq(uffdwp_region_stats(place.region, &stats), 0);
	struct json_object *answer = ask_well("\"do\":\"stat\"");
	struct json_object *region = first_region(answer);
	struct json_object *threads = member(region, "threads");
	ck_assert_uint_gt(stats.faults, 0);
	ck_assert_uint_eq(latencies(region, is_inline ? "inline" : "thread", &sum), stats.faults);
	ck_assert_uint_eq(latencies(region, is_inline ? "thread" : "inline", &sum), 0);
	ck_assert_uint_gt(sum, stats.faults);
	ck_assert_uint_eq(json_object_array_length(threads), 1);
	ck_assert_uint_eq(number(json_object_array_get_idx(threads, 0), "faults"), stats.faults);
	ck_assert_int_eq(number(json_object_array_get_idx(threads, 0), "tid") == 0, is_inline);
	json_object_put(answer);
	close_place_now();
}
END_TEST

/* --- what is done --------------------------------------------------------------------------------------------- */

/* The last one that ended; NULL: none has. To be put with its answer. */
static struct json_object *last_ended(struct json_object **answer)
{
	*answer = ask_well("\"do\":\"stat\"");
	struct json_object *ended = member(*answer, "ended");
	size_t count = json_object_array_length(ended);
	return count ? json_object_array_get_idx(ended, count - 1) : NULL;
}

static int snapshot_ended(void *argument)
{
	struct json_object *answer;
	struct json_object *ended = last_ended(&answer);
	int is_there = ended && number(ended, "snapshot") == *(const uint64_t *)argument;
	json_object_put(answer);
	return is_there;
}

static void expect_ended(uint64_t snapshot, const char *state, const char *error)
{
	struct json_object *answer;
	ck_assert(wait_until(snapshot_ended, &snapshot, 60));
	struct json_object *ended = last_ended(&answer);
	ck_assert_str_eq(words(ended, "state"), state);
	ck_assert_str_eq(words(ended, "error"), error);
	ck_assert_str_eq(words(ended, "by"), "control");
	json_object_put(answer);
}

START_TEST(test_a_snapshot_is_the_region_of_one_instant)
{
	static struct shadow shadow = {.place = &place};
	struct shadow_writer writers[SHADOW_WRITERS];
	pthread_t threads[SHADOW_WRITERS];
	char image[SCRATCH_PATH];
	char request[SCRATCH_PATH + 100];
	uint8_t *expected = malloc(place.length_bytes);
	uint8_t *found = malloc(place.length_bytes);
	must(expected && found);
	shadow.bytes = malloc(place.length_bytes);
	must(shadow.bytes != NULL);
	memcpy(shadow.bytes, place.base, place.length_bytes);
	lock_for_writers_init(&shadow.lock);
	for (size_t i = 0; i < SHADOW_WRITERS; i++) {
		writers[i] = (struct shadow_writer){&shadow, i, chance_new(i)};
		threads[i] = thread_start(shadow_write_for_ever, &writers[i]);
	}
	for (unsigned round = 0; round < support_rounds(5, 50); round++) {
		char name[32];
		(void)snprintf(name, sizeof(name), "%u.img", round);
		scratch_join(image, folder, name);
		(void)snprintf(request, sizeof(request),
		               "\"do\":\"snapshot\",\"region\":1,\"path\":\"%s\",\"mode\":416", image);
		/* The instant lies between the request and its answer: no writer writes meanwhile. */
		must(pthread_rwlock_wrlock(&shadow.lock) == 0);
		struct json_object *answer = ask_well(request);
		memcpy(expected, shadow.bytes, place.length_bytes);
		must(pthread_rwlock_unlock(&shadow.lock) == 0);
		ck_assert_uint_eq(number(answer, "snapshot"), round + 1);
		ck_assert_uint_gt(number(answer, "begin_ns"), number(answer, "pause_ns"));
		json_object_put(answer);
		expect_ended(round + 1, "committed", "null");
		ck_assert_int_eq(scratch_read(image, found, place.length_bytes), 1);
		ck_assert_int_eq(memcmp(found, expected, place.length_bytes), 0);
	}
	atomic_store(&shadow.stop, 1);
	for (size_t i = 0; i < SHADOW_WRITERS; i++)
		thread_join(threads[i]);
	free(shadow.bytes);
	free(expected);
	free(found);
	close_place_now();
}
END_TEST

/* A rate at which it does not end by itself. */
static void begin_slow(const char *name)
{
	char image[SCRATCH_PATH];
	char request[SCRATCH_PATH + 100];
	scratch_join(image, folder, name);
	(void)snprintf(request, sizeof(request), "\"do\":\"snapshot\",\"region\":1,\"path\":\"%s\",\"rate_bytes\":1",
	               image);
	json_object_put(ask_well(request));
}

START_TEST(test_a_snapshot_of_a_client_holds_its_region_until_it_is_aborted)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *own;
	char image[SCRATCH_PATH];
	scratch_join(image, folder, "own.img");
	options.path = image;
	begin_slow("slow.img");
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &own), -EBUSY);
	struct json_object *answer = ask_well("\"do\":\"stat\"");
	struct json_object *running = member(first_region(answer), "snapshot");
	ck_assert_str_eq(words(running, "state"), "running");
	ck_assert_str_eq(words(running, "by"), "control");
	ck_assert_uint_gt(number(member(first_region(answer), "pool"), "bytes"), 0);
	json_object_put(answer);
	expect_refused("\"do\":\"abort\",\"snapshot\":77", "ESRCH");
	json_object_put(ask_well("\"do\":\"abort\",\"snapshot\":1"));
	options.rate_bytes = 1;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &own), 0); /* at once */
	expect_ended(1, "failed", "ECANCELED");
	answer = ask_well("\"do\":\"stat\"");
	running = member(first_region(answer), "snapshot");
	ck_assert_str_eq(words(running, "by"), "program");
	json_object_put(answer);
	/* The program's is aborted by its region only. */
	expect_refused("\"do\":\"abort\",\"snapshot\":2", "ESRCH");
	json_object_put(ask_well("\"do\":\"abort\",\"region\":1"));
	ck_assert_int_eq(uffdwp_snapshot_wait(own, -1, NULL), -ECANCELED);
	ck_assert_int_eq(uffdwp_snapshot_free(own), 0);
	/* One that runs when its region is closed is aborted. */
	begin_slow("last.img");
	close_place_now();
	ck_assert_uint_eq(scratch_entries(folder), 0);
}
END_TEST

/* About a second, in small pieces: what is done meanwhile is done while it runs, or a moment after. */
static void begin_for_a_second(const char *image)
{
	char request[SCRATCH_PATH + 200];
	(void)snprintf(request, sizeof(request),
	               "\"do\":\"snapshot\",\"region\":1,\"path\":\"%s\",\"rate_bytes\":%zu,\"pool_bytes\":%zu", image,
	               place.length_bytes, 16 * place.page_bytes);
	json_object_put(ask_well(request));
}

START_TEST(test_a_close_that_is_refused_leaves_the_snapshot_of_a_client_alone)
{
	struct uffdwp_view *view = NULL;
	char image[SCRATCH_PATH];
	uint8_t *found = malloc(place.length_bytes);
	must(found != NULL);
	int error = uffdwp_view_open(place.region, NULL, &view);
	if (error)
		support_note(__func__, "no view can be opened here");
	else {
		scratch_join(image, folder, "slow.img");
		begin_for_a_second(image);
		ck_assert_int_eq(uffdwp_region_close(place.region), -EBUSY);
		memset(place.base, 2, place.length_bytes);
		ck_assert_int_eq(uffdwp_region_close(place.region), -EBUSY);
		expect_ended(1, "committed", "null");
		ck_assert_int_eq(scratch_read(image, found, place.length_bytes), 1);
		for (size_t i = 0; i < place.length_bytes; i++)
			ck_assert_uint_eq(found[i], 1);
		ck_assert_int_eq(uffdwp_view_close(view), 0);
	}
	free(found);
	close_place_now();
}
END_TEST

START_TEST(test_pages_are_armed_and_disarmed)
{
	uint64_t pages = 0;
	char request[200];
	struct json_object *answer = ask_well("\"do\":\"arm\",\"region\":1");
	ck_assert_uint_eq(number(answer, "pages"), place.pages);
	json_object_put(answer);
	ck_assert_int_eq(uffdwp_region_armed(place.region, 0, place.length_bytes, &pages), 0);
	ck_assert_uint_eq(pages, place.pages);
	(void)snprintf(request, sizeof(request), "\"do\":\"disarm\",\"region\":1,\"offset\":%zu,\"length\":%zu",
	               place.page_bytes, 3 * place.page_bytes);
	answer = ask_well(request);
	ck_assert_uint_eq(number(answer, "pages"), place.pages - 3);
	json_object_put(answer);
	expect_refused("\"do\":\"arm\",\"region\":1,\"offset\":1", "EINVAL");
	expect_refused("\"do\":\"arm\",\"region\":1,\"offset\":9223372036854775807,\"length\":4096", "EINVAL");
	expect_refused("\"do\":\"snapshot\",\"region\":1,\"path\":\"relative\"", "EINVAL");
	expect_refused("\"do\":\"snapshot\",\"region\":1,\"path\":\"/proc/none/image\"", "ENOENT");
	expect_refused("\"do\":\"snapshot\",\"region\":1,\"path\":\"/tmp/x\",\"mode\":4096", "EINVAL");
	answer = ask("\"do\":\"audit\",\"region\":1");
	if (json_object_get_boolean(member(answer, "ok")))
		ck_assert_uint_eq(number(answer, "pages_lost"), 0);
	json_object_put(answer);
	close_place_now();
}
END_TEST

START_TEST(test_what_the_program_does_not_allow_is_refused)
{
	open_place(UFFDWP_DELIVERY_AUTO, UFFDWP_CONTROL_LOOK);
	json_object_put(ask_well("\"do\":\"list\""));
	expect_refused("\"do\":\"snapshot\",\"region\":1,\"path\":\"/tmp/x\"", "EPERM");
	expect_refused("\"do\":\"audit\",\"region\":1", "EPERM");
	expect_refused("\"do\":\"arm\",\"region\":1", "EPERM");
	expect_refused("\"do\":\"abort\",\"region\":1", "EPERM");
	close_place_now();
	open_place(UFFDWP_DELIVERY_AUTO, UFFDWP_CONTROL_SNAPSHOT);
	expect_refused("\"do\":\"list\"", "EPERM");
	expect_refused("\"do\":\"stat\",\"region\":2", "EPERM");
	expect_refused("\"do\":\"trace\"", "EPERM");
	json_object_put(ask_well("\"do\":\"hello\""));
	close_place_now();
	struct uffdwp *runtime;
	ck_assert_int_eq(open_runtime(8, &runtime), -EINVAL);
}
END_TEST

/* The table of rights in PROTOCOL.md. */
static const struct {
	const char *members;
	uint32_t needs;
} rights[] = {
        {"\"do\":\"hello\"", 0},
        {"\"do\":\"list\"", UFFDWP_CONTROL_LOOK},
        {"\"do\":\"stat\"", UFFDWP_CONTROL_LOOK},
        {"\"do\":\"stat\",\"region\":%u", UFFDWP_CONTROL_LOOK},
        {"\"do\":\"trace\",\"seconds\":1", UFFDWP_CONTROL_LOOK},
        {"\"do\":\"trace\",\"seconds\":1,\"region\":%u", UFFDWP_CONTROL_LOOK},
        {"\"do\":\"snapshot\",\"path\":\"no/such/folder\",\"region\":%u", UFFDWP_CONTROL_SNAPSHOT},
        {"\"do\":\"audit\",\"region\":%u", UFFDWP_CONTROL_SNAPSHOT},
        {"\"do\":\"abort\",\"region\":%u", UFFDWP_CONTROL_SNAPSHOT | UFFDWP_CONTROL_ARM},
        {"\"do\":\"arm\",\"region\":%u", UFFDWP_CONTROL_ARM},
        {"\"do\":\"disarm\",\"region\":%u", UFFDWP_CONTROL_ARM},
};

static void expect_rights(uint32_t control, unsigned region)
{
	for (size_t i = 0; i < sizeof(rights) / sizeof(rights[0]); i++) {
		char members[256];
		(void)snprintf(members, sizeof(members), "%s", rights[i].members);
		char *at = strstr(members, "%u");
		if (at)
			(void)snprintf(at, 16, "%u", region);
		struct json_object *answer = ask(members);
		struct json_object *error = NULL;
		int refused = json_object_object_get_ex(answer, "error", &error) &&
		              strcmp(json_object_get_string(error), "EPERM") == 0;
		ck_assert_msg(refused == ((rights[i].needs & ~control) != 0), "rights %#x, %s: %s", control, members,
		              json_object_to_json_string(answer));
		json_object_put(answer);
	}
}

/* What a client has begun it ends by its number, without the right to end what the program began. */
static void expect_abort_by_number(unsigned region)
{
	char members[SCRATCH_PATH + 128];
	(void)snprintf(members, sizeof(members),
	               "\"do\":\"snapshot\",\"path\":\"%s/a.img\",\"rate_bytes\":1,\"region\":%u", folder, region);
	struct json_object *answer = ask_well(members);
	(void)snprintf(members, sizeof(members), "\"do\":\"abort\",\"snapshot\":%u",
	               (unsigned)number(answer, "snapshot"));
	json_object_put(answer);
	json_object_put(ask_well(members));
}

START_TEST(test_each_right_allows_what_its_table_says)
{
	for (uint32_t control = 1; control <= ALL; control++) {
		open_place(UFFDWP_DELIVERY_AUTO, control);
		expect_rights(control, control); /* the n-th region of this process */
		if (control & UFFDWP_CONTROL_SNAPSHOT)
			expect_abort_by_number(control);
		close_place_now();
	}
}
END_TEST

/* --- trace ---------------------------------------------------------------------------------------------------- */

START_TEST(test_a_trace_shows_the_writes_that_there_are)
{
	struct client *client = client_new();
	uint64_t seen = 0;
	int is_last = 0;
	client_send(client, "{\"v\":1,\"do\":\"trace\",\"region\":1,\"per_second\":100000,\"seconds\":1}\n");
	struct json_object *line = client_read(client);
	ck_assert(json_object_get_boolean(member(line, "ok")));
	json_object_put(line);
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	sleep_us(50000); /* some tokens */
	for (size_t page = 0; page < 16; page++)
		((volatile uint8_t *)place.base)[page * 7 * place.page_bytes + 5] = 9;
	while (!is_last && (line = client_read(client)) != NULL) {
		if (strcmp(words(line, "event"), "tick") == 0) {
			is_last = json_object_get_boolean(member(line, "last"));
			ck_assert_uint_eq(number(line, "sent"), seen);
			ck_assert(!is_last || number(line, "seen") >= 16);
		} else {
			uint64_t page = number(line, "offset") / place.page_bytes;
			uint64_t address = strtoull(words(line, "address"), NULL, 16) - (uintptr_t)place.base;
			ck_assert_uint_eq(page % 7, 0);
			ck_assert_uint_eq(address / place.page_bytes, page);
			ck_assert_uint_eq(number(line, "region"), 1);
			seen++;
		}
		json_object_put(line);
	}
	ck_assert(is_last);
	ck_assert_uint_gt(seen, 0);
	client_free(client);
	close_place_now();
}
END_TEST

START_TEST(test_a_trace_of_all_leaves_out_what_may_not_be_looked_at)
{
	struct uffdwp *closed;
	struct uffdwp_region *region;
	struct client *client = client_new();
	struct json_object *line;
	uint64_t seen = 0;
	ck_assert_int_eq(open_runtime(UFFDWP_CONTROL_SNAPSHOT | UFFDWP_CONTROL_ARM, &closed), 0);
	ck_assert_int_eq(uffdwp_region_create(closed, place.length_bytes, NULL, &region), 0);
	json_object_put(ask_well("\"do\":\"arm\",\"region\":2"));
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	client_send(client, "{\"v\":1,\"do\":\"trace\",\"per_second\":100000,\"seconds\":1}\n");
	json_object_put(client_read(client));
	for (size_t page = 0; page < 16; page++) {
		((volatile uint8_t *)uffdwp_region_base(region))[page * place.page_bytes] = 9;
		((volatile uint8_t *)place.base)[page * place.page_bytes] = 9;
	}
	for (int is_last = 0; !is_last && (line = client_read(client)) != NULL; json_object_put(line)) {
		if (strcmp(words(line, "event"), "write") == 0)
			ck_assert_uint_eq(number(line, "region"), 1);
		else if ((is_last = json_object_get_boolean(member(line, "last"))))
			seen = number(line, "seen");
	}
	ck_assert_uint_ge(seen, 16);
	ck_assert_uint_lt(seen, 32);
	client_free(client);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_int_eq(uffdwp_close(closed), 0);
	close_place_now();
}
END_TEST

START_TEST(test_a_client_that_never_reads_stops_no_writer)
{
	struct place_case which = place_case(_i);
	if (which.memory != UFFDWP_MEMORY_SHMEM || which.mechanism != UFFDWP_MECHANISM_MARKER || !place_possible(which))
		return;
	open_place(which.delivery, ALL);
	struct client *deaf[5];
	for (int i = 0; i < 5; i++) {
		deaf[i] = client_new();
		client_send(deaf[i], "{\"v\":1,\"do\":\"trace\",\"per_second\":100000}\n");
	}
	/* Four at a time. */
	struct json_object *answer = client_read(deaf[4]);
	ck_assert_str_eq(words(answer, "error"), "EBUSY");
	json_object_put(answer);
	fault_by_four(support_rounds(100, 1000));
	answer = ask_well("\"do\":\"list\"");
	json_object_put(answer);
	for (int i = 0; i < 5; i++)
		client_free(deaf[i]);
	close_place_now();
}
END_TEST

/* --- ends and beginnings -------------------------------------------------------------------------------------- */

static void *ask_for_ever(void *argument)
{
	_Atomic int *stop = argument;
	static const char *const requests[] = {
	        "{\"v\":1,\"do\":\"list\"}\n", "{\"v\":1,\"do\":\"stat\"}\n",
	        "{\"v\":1,\"do\":\"arm\",\"region\":%u}\n",
	        "{\"v\":1,\"do\":\"snapshot\",\"region\":%u,\"path\":\"%s/round.img\"}\n",
	        "{\"v\":1,\"do\":\"audit\",\"region\":%u}\n"};
	struct chance chance = chance_new(6);
	struct client *client = client_new();
	unsigned region = 1;
	while (!atomic_load(stop)) {
		char line[1024];
		size_t which = chance_below(&chance, 5);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		(void)snprintf(line, sizeof(line), requests[which], region + (unsigned)chance_below(&chance, 3),
		               folder);
#pragma GCC diagnostic pop
		client_send(client, line);
		struct json_object *answer = client_read(client);
		must(answer != NULL);
		if (which == 0 && json_object_array_length(member(answer, "regions")) > 0)
			region = (unsigned)number(first_region(answer), "region");
		json_object_put(answer);
	}
	client_free(client);
	return NULL;
}

START_TEST(test_regions_close_while_clients_use_them)
{
	_Atomic int stop = 0;
	pthread_t threads[2];
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	for (int i = 0; i < 2; i++)
		threads[i] = thread_start(ask_for_ever, &stop);
	for (unsigned round = 0; round < support_rounds(100, 2000); round++) {
		ck_assert_int_eq(uffdwp_region_create(place.runtime, place.length_bytes, NULL, &place.region), 0);
		memset(uffdwp_region_base(place.region), 4, place.length_bytes);
		sleep_us(round % 4 * 1000);
		ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < 2; i++)
		thread_join(threads[i]);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(test_one_socket_serves_all_runtimes)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp *second;
	struct uffdwp *without;
	ck_assert_int_eq(open_runtime(0, &second), 0);
	ck_assert_int_eq(uffdwp_open(NULL, &without), 0);
	struct json_object *answer = ask_well("\"do\":\"list\"");
	ck_assert_uint_eq(json_object_array_length(member(answer, "runtimes")), 2);
	json_object_put(answer);
	options.flags = UFFDWP_OPEN_CONTROL;
	options.control_path = "/tmp/another.sock";
	struct uffdwp *third;
	ck_assert_int_eq(uffdwp_open(&options, &third), -EBUSY);
	ck_assert_int_eq(uffdwp_close(place.runtime), -EBUSY);
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
	answer = ask_well("\"do\":\"list\"");
	ck_assert_uint_eq(json_object_array_length(member(answer, "runtimes")), 1);
	json_object_put(answer);
	ck_assert_int_eq(uffdwp_close(second), 0);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(uffdwp_close(without), 0);
}
END_TEST

int main(void)
{
	support_begin("test_control", &(struct support_needs){0, 0});
	place_begin();
	Suite *suite = suite_create("control");
	TCase *tests = tcase_create("control");
	TCase *opened = tcase_create("opened");
	tcase_set_timeout(tests, 600);
	tcase_set_timeout(opened, 600);
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_checked_fixture(opened, setup_open, NULL);
	tcase_add_test(opened, test_a_client_reads_what_the_interface_says);
	tcase_add_test(opened, test_dirty_pages_are_counted_while_snapshots_come_and_go);
	tcase_add_loop_test(tests, test_each_fault_has_its_latency, 0, PLACE_CASES);
	tcase_add_test(opened, test_a_snapshot_is_the_region_of_one_instant);
	tcase_add_test(opened, test_a_snapshot_of_a_client_holds_its_region_until_it_is_aborted);
	tcase_add_test(opened, test_a_close_that_is_refused_leaves_the_snapshot_of_a_client_alone);
	tcase_add_test(opened, test_pages_are_armed_and_disarmed);
	tcase_add_test(tests, test_what_the_program_does_not_allow_is_refused);
	tcase_add_test(tests, test_each_right_allows_what_its_table_says);
	tcase_add_test(opened, test_a_trace_of_all_leaves_out_what_may_not_be_looked_at);
	tcase_add_test(opened, test_a_trace_shows_the_writes_that_there_are);
	tcase_add_loop_test(tests, test_a_client_that_never_reads_stops_no_writer, 0, PLACE_CASES);
	tcase_add_test(opened, test_regions_close_while_clients_use_them);
	tcase_add_test(opened, test_one_socket_serves_all_runtimes);
	suite_add_tcase(suite, tests);
	suite_add_tcase(suite, opened);
	return support_run(suite);
}

#else

int main(void)
{
	return support_skip("the library was built without json-c");
}

#endif
