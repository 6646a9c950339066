/* SPDX-License-Identifier: MIT */
/*
 * Flags and states of the public headers, by the text of the headers themselves: no bit of a noun is used twice, each
 * name says what it is of, and each call refuses every bit that is not a flag of its own, also one that another call of
 * the same noun takes.
 */
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define FLAGS_MOST 64
#define NAME_MOST 64
#define LENGTH_BYTES ((size_t)1 << 20)

struct flag {
	char name[NAME_MOST];
	unsigned bit;
};

static struct flag flags[FLAGS_MOST];
static size_t flag_count;
static char header[400000];

/* Calls that take flags. */
static struct uffdwp *runtime;
static struct uffdwp_region *region;
static struct uffdwp_track *track;
static struct uffdwp_image *image;
static char path[SCRATCH_PATH];

static void read_header(const char *name)
{
	const char *source = getenv("UFFDWP_SOURCE");
	char file[4200];
	(void)snprintf(file, sizeof(file), "%s/include/uffdwp/%s.h", source ? source : ".", name);
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	must(fd >= 0);
	size_t at = strlen(header);
	ssize_t got = read(fd, header + at, sizeof(header) - at - 1);
	must(got > 0 && (size_t)got < sizeof(header) - at - 1);
	close(fd);
}

static void take_flag(const char *name, size_t length, unsigned bit)
{
	must(flag_count < FLAGS_MOST && length < NAME_MOST);
	memcpy(flags[flag_count].name, name, length);
	flags[flag_count].bit = bit;
	flag_count++;
}

static void find_flags(void)
{
	regex_t define;
	regmatch_t part[3];
	must(regcomp(&define, "#define (UFFDWP_[A-Z_]+) \\(1u << ([0-9]+)\\)", REG_EXTENDED) == 0);
	for (const char *at = header; regexec(&define, at, 3, part, 0) == 0; at += part[0].rm_eo)
		take_flag(at + part[1].rm_so, (size_t)(part[1].rm_eo - part[1].rm_so),
		          (unsigned)atoi(at + part[2].rm_so));
	regfree(&define);
}

/* Length of "UFFDWP_NOUN_". */
static size_t noun_length(const char *name)
{
	return (size_t)(strchr(name + strlen("UFFDWP_"), '_') - name) + 1;
}

START_TEST(test_no_two_flags_of_a_noun_share_a_bit)
{
	size_t written = 0;
	for (const char *at = strstr(header, "1u <<"); at; at = strstr(at + 1, "1u <<"))
		written++;
	ck_assert_uint_eq(flag_count, written);
	ck_assert_uint_gt(flag_count, 15);
	for (size_t i = 0; i < flag_count; i++) {
		for (size_t other = 0; other < i; other++) {
			size_t length = noun_length(flags[i].name);
			ck_assert_str_ne(flags[i].name, flags[other].name);
			if (strncmp(flags[i].name, flags[other].name, length) == 0)
				ck_assert_msg(flags[i].bit != flags[other].bit, "%s and %s are both bit %u",
				              flags[i].name, flags[other].name, flags[i].bit);
		}
	}
}
END_TEST

START_TEST(test_a_state_says_that_it_is_one)
{
	regex_t state;
	regmatch_t part[2];
	char names[400];
	size_t count = 0;
	must(regcomp(&state, "enum uffdwp_[a-z_]*state \\{([^}]*)\\}", REG_EXTENDED) == 0);
	for (const char *at = header; regexec(&state, at, 2, part, 0) == 0; at += part[0].rm_eo) {
		size_t length = (size_t)(part[1].rm_eo - part[1].rm_so);
		ck_assert_uint_lt(length, sizeof(names));
		memcpy(names, at + part[1].rm_so, length);
		names[length] = '\0';
		for (char *name = strstr(names, "UFFDWP_"); name; name = strstr(name + 1, "UFFDWP_"))
			ck_assert_msg(strstr(name, "_STATE_") == name + noun_length(name) - 1, "%s", name);
		count++;
	}
	regfree(&state);
	ck_assert_uint_ge(count, 2);
}
END_TEST

/* A count grows with each word that comes; an array of a public structure that it sizes would change the layout. */
START_TEST(test_the_headers_count_no_words)
{
	ck_assert_ptr_null(strstr(header, "_COUNT"));
}
END_TEST

START_TEST(test_the_probe_is_asked_by_index_until_there_is_no_more)
{
	struct uffdwp_probe *probe;
	ck_assert_int_eq(uffdwp_probe_run(&probe), 0);
	uint32_t memory = 0;
	for (struct uffdwp_probe_memory found = {.sz = sizeof(found)};; memory++) {
		int error = uffdwp_probe_memory(probe, memory, &found);
		if (error == -ERANGE)
			break;
		ck_assert_int_eq(error, 0);
		ck_assert_str_ne(found.reason, "");
	}
	ck_assert_uint_gt(memory, UFFDWP_MEMORY_ANON);
	struct uffdwp_probe_rung rung = {.sz = sizeof(rung)};
	ck_assert_int_eq(uffdwp_probe_rung(probe, 0, UFFDWP_MECHANISM_SOFT_DIRTY, &rung), 0);
	ck_assert_int_eq(uffdwp_probe_rung(probe, 0, 1000, &rung), -ERANGE);
	ck_assert_int_eq(uffdwp_probe_rung(probe, memory, 0, &rung), -ERANGE);
	struct uffdwp_probe_trial trial = {.sz = sizeof(trial)};
	ck_assert_int_eq(uffdwp_probe_trial(probe, 0, UFFDWP_TRIAL_MREMAP, &trial), 0);
	ck_assert_int_eq(uffdwp_probe_trial(probe, 0, 1000, &trial), -ERANGE);
	int32_t result = 77;
	struct uffdwp_probe_arming arming = {.sz = sizeof(arming)};
	ck_assert_int_eq(uffdwp_probe_arming(probe, 0, UFFDWP_ARMING_MOVE, &arming), 0);
	ck_assert_int_eq(uffdwp_probe_arming(probe, 0, 1000, &arming), -ERANGE);
	ck_assert_int_eq(uffdwp_probe_arming(probe, memory, UFFDWP_ARMING_MOVE, &arming), -ERANGE);
	ck_assert_int_eq(uffdwp_probe_access(probe, 1000, &result), -ERANGE);
	ck_assert_int_eq(result, 77);
	ck_assert_int_eq(uffdwp_probe_access(probe, UFFDWP_ACCESS_SYSCALL, &result), 0);
	ck_assert_int_le(result, 0);
	ck_assert_int_eq(uffdwp_probe_run(NULL), -EINVAL);
	ck_assert_int_eq(uffdwp_probe_free(probe), 0);
	ck_assert_int_eq(uffdwp_probe_free(NULL), 0);
}
END_TEST

/* --- each call and the bits that are not its own ----------------------------------------------------------------- */

static int call_open(uint32_t bits)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp *other;
	options.flags = bits;
	return uffdwp_open(&options, &other);
}

static int call_create(uint32_t bits)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region *other;
	options.flags = bits;
	return uffdwp_region_create(runtime, LENGTH_BYTES, &options, &other);
}

static int call_attach(uint32_t bits)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region *other;
	options.flags = bits;
	return uffdwp_region_attach(runtime, uffdwp_region_base(region), LENGTH_BYTES, &options, &other);
}

static int call_snapshot(uint32_t bits)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	options.path = path;
	options.flags = bits;
	return uffdwp_snapshot_begin(region, &options, &snapshot);
}

static int call_group(uint32_t bits)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	options.path = path;
	options.flags = bits;
	return uffdwp_snapshot_begin_group(&region, &options, 1, &snapshot);
}

static int call_fork(uint32_t bits)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	options.flags = bits;
	return uffdwp_fork(runtime, &options, NULL);
}

/* Where the bits are taken the memfd is found to be no userfaultfd. */
static int call_adopt(uint32_t bits)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_mapper mapper = UFFDWP_MAPPER_INIT;
	struct uffdwp_mapping mapping = {LENGTH_BYTES, 0, LENGTH_BYTES};
	struct uffdwp_region *other;
	int fd = memfd_create("memory", MFD_CLOEXEC);
	must(fd >= 0 && ftruncate(fd, LENGTH_BYTES) == 0);
	options.fd = fd;
	mapper.flags = bits;
	mapper.uffd = fd;
	mapper.mapping_count = 1;
	mapper.mappings = &mapping;
	int error = uffdwp_region_adopt(runtime, LENGTH_BYTES, &options, &mapper, &other);
	(void)close(fd);
	return error == -ENOTTY ? 0 : error;
}

static int call_view(uint32_t bits)
{
	struct uffdwp_view_options options = UFFDWP_VIEW_OPTIONS_INIT;
	struct uffdwp_view *view;
	options.flags = bits;
	return uffdwp_view_open(region, &options, &view);
}

static int call_track_start(uint32_t bits)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	struct uffdwp_track *other;
	options.flags = bits;
	return uffdwp_track_start(runtime, &options, &other);
}

static int call_track_add(uint32_t bits)
{
	return uffdwp_track_add(track, uffdwp_region_base(region), LENGTH_BYTES, bits);
}

static int call_track_collect(uint32_t bits)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.flags = bits;
	return uffdwp_track_collect(track, &collect);
}

static int call_image_open(uint32_t bits)
{
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct uffdwp_image *other;
	options.flags = bits;
	return uffdwp_image_open(path, &options, &other);
}

static int call_image_merge(uint32_t bits)
{
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	options.flags = bits;
	return uffdwp_image_merge(image, path, &options);
}

static int call_image_diff(uint32_t bits)
{
	struct uffdwp_image_diff diff = UFFDWP_IMAGE_DIFF_INIT;
	diff.flags = bits;
	return uffdwp_image_diff(image, image, &diff);
}

static int call_restore(uint32_t bits)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	options.path = path;
	options.flags = bits;
	return uffdwp_restore(region, &options, NULL);
}

static int call_restore_begin(uint32_t bits)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *restore;
	options.path = path;
	options.flags = bits;
	return uffdwp_restore_begin(region, &options, &restore);
}

/* A flag of the call `own`, or of every call of the noun that is in no list of another one: the naming rule. */
static const struct {
	const char *noun;
	const char *own;
	const char *others; /* what the flags of other calls of this noun begin with, after the noun */
	int (*call)(uint32_t bits);
	const char *name; /* that the refusal's text has for it */
} calls[] = {
        {"UFFDWP_OPEN_", "", "", call_open, "uffdwp_open()"},
        {"UFFDWP_REGION_", "CREATE_", "ATTACH_", call_create, "uffdwp_region_create()"},
        {"UFFDWP_REGION_", "ATTACH_", "CREATE_", call_attach, "uffdwp_region_attach()"},
        {"UFFDWP_SNAPSHOT_", "", "", call_snapshot, "uffdwp_snapshot_begin()"},
        {"UFFDWP_SNAPSHOT_", "", "", call_group, "uffdwp_snapshot_begin()"},
        {"UFFDWP_VIEW_", "", "", call_view, "uffdwp_view_open()"},
        {"UFFDWP_FORK_", "", "", call_fork, "uffdwp_fork()"},
        {"UFFDWP_MAPPER_", "", "", call_adopt, "a mapper"},
        {"UFFDWP_TRACK_", "START_", "ADD_ COLLECT_ WRITTEN", call_track_start, "uffdwp_track_start()"},
        {"UFFDWP_TRACK_", "ADD_", "START_ COLLECT_ WRITTEN", call_track_add, "uffdwp_track_add()"},
        {"UFFDWP_TRACK_", "COLLECT_", "START_ ADD_ WRITTEN", call_track_collect, "uffdwp_track_collect()"},
        {"UFFDWP_IMAGE_", "OPEN_", "MERGE_", call_image_open, "uffdwp_image_open()"},
        {"UFFDWP_IMAGE_", "MERGE_", "OPEN_", call_image_merge, "uffdwp_image_merge()"},
        {"UFFDWP_IMAGE_", "DIFF_", "OPEN_ MERGE_", call_image_diff, "uffdwp_image_diff()"},
        {"UFFDWP_RESTORE_", "WHOLE_", "BEGIN_", call_restore, "uffdwp_restore()"},
        {"UFFDWP_RESTORE_", "BEGIN_", "", call_restore_begin, "uffdwp_restore_begin()"},
};

static int is_of_other(const char *word, const char *others)
{
	for (const char *at = others; *at; at += strcspn(at, " "), at += *at == ' ') {
		if (strncmp(word, at, strcspn(at, " ")) == 0)
			return 1;
	}
	return 0;
}

static uint32_t own_bits(size_t call)
{
	size_t length = strlen(calls[call].noun);
	uint32_t bits = 0;
	for (size_t i = 0; i < flag_count; i++) {
		if (strncmp(flags[i].name, calls[call].noun, length) == 0 &&
		    !is_of_other(flags[i].name + length, calls[call].others))
			bits |= 1u << flags[i].bit;
	}
	return bits;
}

START_TEST(test_a_call_refuses_every_flag_that_is_not_its_own)
{
	size_t call = (size_t)_i;
	uint32_t own = own_bits(call);
	for (unsigned bit = 0; bit < 32; bit++) {
		char text[512] = "";
		if (own >> bit & 1)
			continue;
		ck_assert_msg(calls[call].call(1u << bit) == -EINVAL, "%s%s: bit %u was taken", calls[call].noun,
		              calls[call].own, bit);
		(void)uffdwp_error_text(text, sizeof(text));
		ck_assert_msg(strstr(text, calls[call].name) != NULL, "\"%s\" does not name %s", text,
		              calls[call].name);
	}
}
END_TEST

START_TEST(test_close_names_all_that_is_open)
{
	char text[512] = "";
	ck_assert_int_eq(uffdwp_close(runtime), -EBUSY);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, "1 region and 1 track of") != NULL, "\"%s\"", text);
}
END_TEST

/* What was asked for here was once taken for UFFDWP_TRACK_ADD_CLEAN. */
START_TEST(test_a_flag_of_start_does_not_forget_pages_on_add)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *memory = mmap(NULL, 16 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	memory[0] = 1;
	memory[page] = 2;
	ck_assert_int_eq(uffdwp_track_add(track, memory, 16 * page, UFFDWP_TRACK_START_POPULATED), -EINVAL);
	int error = uffdwp_track_add(track, memory, 16 * page, 0);
	ck_assert_int_eq(error, 0);
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_uint_ge(collect.bytes, 2 * page);
	ck_assert_int_eq(uffdwp_track_remove(track, memory, 16 * page), 0);
	munmap(memory, 16 * page);
}
END_TEST

static void setup(void)
{
	char folder[SCRATCH_PATH];
	void *zeros = calloc(1, LENGTH_BYTES);
	scratch_folder(folder);
	scratch_join(path, folder, "flags.img");
	scratch_write(path, zeros, LENGTH_BYTES);
	free(zeros);
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region), 0);
	ck_assert_int_eq(uffdwp_track_start(runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_image_open(path, NULL, &image), 0);
}

static void teardown(void)
{
	ck_assert_int_eq(uffdwp_image_close(image), 0);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}

int main(void)
{
	support_begin("test_flags", &(struct support_needs){0, 0});
	static const char *const nouns[] = {"adopt",   "child",   "image",    "probe", "region",
	                                    "restore", "runtime", "snapshot", "track", "view"};
	for (size_t i = 0; i < sizeof(nouns) / sizeof(nouns[0]); i++)
		read_header(nouns[i]);
	find_flags();
	Suite *suite = suite_create("flags");
	TCase *names = tcase_create("names");
	tcase_add_test(names, test_no_two_flags_of_a_noun_share_a_bit);
	tcase_add_test(names, test_a_state_says_that_it_is_one);
	tcase_add_test(names, test_the_headers_count_no_words);
	tcase_add_test(names, test_the_probe_is_asked_by_index_until_there_is_no_more);
	suite_add_tcase(suite, names);
	TCase *refused = tcase_create("refused");
	tcase_add_checked_fixture(refused, setup, teardown);
	tcase_set_timeout(refused, 60);
	tcase_add_loop_test(refused, test_a_call_refuses_every_flag_that_is_not_its_own, 0,
	                    (int)(sizeof(calls) / sizeof(calls[0])));
	tcase_add_test(refused, test_a_flag_of_start_does_not_forget_pages_on_add);
	tcase_add_test(refused, test_close_names_all_that_is_open);
	suite_add_tcase(suite, refused);
	return support_run(suite);
}
