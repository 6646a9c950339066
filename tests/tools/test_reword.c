/* SPDX-License-Identifier: MIT */
/*
 * Texts of the library as the tools pass them on (tools/common/reword.c): no text that a user of a tool can meet names
 * a function, a flag or a field of the library's interface. The witness is the library itself: all texts in the sources
 * of the modules that a tool uses are read, and what only a program can come by is listed here with its reason.
 */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reword.h"
#include "support.h"

#define TEXT_MOST 4096

/* A text that a tool's user cannot meet, by words of it. */
struct exception {
	const char *words;
	const char *reason;
};

static const struct exception exceptions[] = {
        {"takes no flag", "no tool gives flags that are not known"},
        {"progress is for", "serve asks for no progress"},
        {"UFFDWP_SNAPSHOT_COARSE", "no tool gives that flag"},
        {"UFFDWP_SNAPSHOT_INCREMENT", "no tool takes snapshots by callback"},
        {"the stream sink needs", "no tool takes snapshots to a descriptor"},
        {"UFFDWP_REGION_CREATE_INHERIT", "no tool makes such regions"},
        {"none of enum", "no tool gives such numbers"},
        {"only adopted regions", "serve has adopted its regions"},
        {"UFFDWP_NUMA", "no tool places memory"},
        {"UFFDWP_MECHANISM_MPROTECT", "no tool attaches memory"},
        {"UFFDWP_REGION_", "no tool makes regions of that kind, or asks for huge pages of files"},
        {"UFFDWP_MECHANISM_REARM when", "serve asks for rearm where it restores"},
        {"uffdwp_restore_begin()", "serve restores lazily only"},
        {"uffdwp_track_", "no tool asks for soft-dirty, or removes ranges"},
        {"faults of another process come to a thread", "serve asks for no delivery"},
        {"control has bits", "no tool opens a runtime with control"},
        {"control_path", "no tool opens a runtime with control"},
        {"UFFDWP_OPEN_CONTROL", "no tool opens a runtime with control"},
};

static const char *exception_of(const char *text)
{
	for (size_t i = 0; i < sizeof(exceptions) / sizeof(exceptions[0]); i++)
		if (strstr(text, exceptions[i].words))
			return exceptions[i].reason;
	return NULL;
}

/* Names of the interface; but variables of the environment are the user's. */
static int names_the_interface(const char *text)
{
	static const char *const fields[] = {"pool_bytes", "rate_bytes", "wait_ns", "stream sink",
	                                     "huge_page_bytes of"};
	const char *at;

	for (at = text; (at = strstr(at, "uffdwp_")); at++)
		if (islower((unsigned char)at[7]))
			return 1;
	for (at = text; (at = strstr(at, "UFFDWP_")); at++)
		if (strncmp(at, "UFFDWP_CONTROL", 14) != 0 && strncmp(at, "UFFDWP_DEBUG", 12) != 0)
			return 1;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (strstr(text, fields[i]))
			return 1;
	return 0;
}

/* "uffdwp_open", which a text about flags begins with: no tool gives flags that are not known. */
static int is_a_word(const char *text)
{
	return text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_*")] == '\0';
}

/* ---- the sources ---- */

/* The next text from `at` on, its pieces joined as the compiler does; where it ends, or NULL: there is none. */
static const char *next_text(const char *at, char text[TEXT_MOST])
{
	size_t used = 0;
	int found = 0;

	while (*at) {
		if (strncmp(at, "/*", 2) == 0) {
			const char *end = strstr(at, "*/");
			must(end != NULL);
			at = end + 2;
		} else if (*at == '#') {
			at += strcspn(at, "\n");
		} else if (*at == '\'') {
			at += at[1] == '\\' ? 4 : 3;
		} else if (*at == '"') {
			for (at++; *at != '"'; at++) {
				must(*at && used + 2 < TEXT_MOST);
				at += *at == '\\';
				text[used++] = *at;
			}
			found = 1;
			at++;
		} else if (found && !isspace((unsigned char)*at)) {
			break;
		} else {
			at++;
		}
	}
	text[used] = '\0';
	return found ? at : NULL;
}

static unsigned check_file(const char *path, enum reword_for reader)
{
	static char bytes[1 << 20];
	static char text[TEXT_MOST];
	char said[2 * TEXT_MOST];
	unsigned texts = 0;
	FILE *file = fopen(path, "re");

	must(file != NULL);
	bytes[fread(bytes, 1, sizeof(bytes) - 1, file)] = '\0';
	(void)fclose(file);
	for (const char *at = bytes; (at = next_text(at, text)) != NULL; texts++) {
		if (!is_a_word(text) && !exception_of(text) &&
		    names_the_interface(reword(reader, text, said, sizeof(said))))
			ck_abort_msg("%s: \"%s\" reaches users of a tool (%d) as \"%s\": a row of "
			             "tools/common/reword.c is missing",
			             path, text, (int)reader, said);
	}
	return texts;
}

static unsigned check(enum reword_for reader, const char *module)
{
	const char *source = getenv("UFFDWP_SOURCE");
	char folder[1024];
	char path[2048];
	unsigned texts = 0;
	struct dirent *entry;

	must(source != NULL);
	(void)snprintf(folder, sizeof(folder), "%s/lib/%s", source, module);
	if (strstr(module, ".c"))
		return check_file(folder, reader);
	DIR *list = opendir(folder);
	must(list != NULL);
	while ((entry = readdir(list)) != NULL) {
		size_t length = strlen(entry->d_name);

		if (length < 3 || strcmp(entry->d_name + length - 2, ".c") != 0)
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		texts += check_file(path, reader);
	}
	(void)closedir(list);
	return texts;
}

/* ---- tests ---- */

static const struct {
	enum reword_for reader;
	const char *modules[12];
} reached[] = {
        {REWORD_LIVE,
         {"api.c", "api_snapshot.c", "api_region.c", "snapshot", "cut", "control", "image/target.c", "image/writer.c",
          "image/file.c", "fault/arm.c", "fault/audit.c"}},
        {REWORD_IMAGE, {"api.c", "api_image.c", "image", "io"}},
        {REWORD_SERVE,
         {"api_adopt.c", "api_snapshot.c", "api_restore.c", "snapshot", "restore", "image", "fault/join.c",
          "region/mapper_open.c", "region/plan.c", "region/region.c"}},
        {REWORD_FORK,
         {"api_child.c", "api_region.c", "api_runtime.c", "child", "fault/runtime.c", "region/plan.c",
          "region/region.c", "region/region_file.c"}},
};

START_TEST(test_no_text_that_a_user_of_a_tool_meets_names_the_interface)
{
	unsigned texts = 0;

	for (size_t i = 0; i < 12 && reached[_i].modules[i]; i++)
		texts += check(reached[_i].reader, reached[_i].modules[i]);
	ck_assert_uint_gt(texts, 50);
}
END_TEST

START_TEST(test_an_option_of_the_command_is_named)
{
	static const struct {
		enum reword_for reader;
		const char *text;
		const char *words;
	} texts[] = {
	        {REWORD_LIVE, "a snapshot of this region has not been freed: uffdwp_snapshot_free()",
	         "uffdwp-ctl abort"},
	        {REWORD_LIVE,
	         "page tables cannot be moved: its page tables are other processes': ask for UFFDWP_ARMING_ROUNDS",
	         "--arming=rounds"},
	        {REWORD_LIVE, "there was none: take a snapshot of all first, with UFFDWP_SNAPSHOT_KEEP", "with --keep"},
	        {REWORD_LIVE, "pool_bytes 4096 is less than 16 pages", "--pool 4096 is"},
	        {REWORD_IMAGE, "there is no \"a\"; put it there or name its path", "--ancestor=FILE"},
	        {REWORD_FORK, "it cannot be delivered inline here: ask for UFFDWP_DELIVERY_THREAD or _AUTO",
	         "take --delivery=thread"},
	        {REWORD_SERVE, "leave UFFDWP_MAPPER_REGISTERED out", "leave \"registered\" out"},
	};
	char said[REWORD_BYTES];

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		ck_assert_msg(strstr(reword(texts[i].reader, texts[i].text, said, sizeof(said)), texts[i].words), "%s",
		              said);
	ck_assert_str_eq(reword(REWORD_LIVE, "no space left on /pool", said, sizeof(said)), "no space left on /pool");
	ck_assert_str_eq(reword(REWORD_LIVE, "", said, sizeof(said)), "");
}
END_TEST

/* A process that lies may send what becomes longer with each word. */
START_TEST(test_a_text_that_grows_is_cut_at_the_end_of_the_buffer)
{
	char text[1024] = "";
	char said[1024];

	for (size_t i = 0; i < 600; i++)
		text[i] = ": close it"[i % 10];
	for (size_t size = 1; size <= sizeof(said); size++) {
		memset(said, 'x', sizeof(said));
		ck_assert_uint_eq(strlen(reword(REWORD_LIVE, text, said, size)), size - 1);
		ck_assert(size == sizeof(said) || said[size] == 'x');
	}
}
END_TEST

int main(void)
{
	support_begin("test_reword", &(struct support_needs){0, 0});
	Suite *suite = suite_create("reword");
	TCase *tests = tcase_create("reword");

	tcase_add_loop_test(tests, test_no_text_that_a_user_of_a_tool_meets_names_the_interface, 0,
	                    sizeof(reached) / sizeof(reached[0]));
	tcase_add_test(tests, test_an_option_of_the_command_is_named);
	tcase_add_test(tests, test_a_text_that_grows_is_cut_at_the_end_of_the_buffer);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
