/* SPDX-License-Identifier: MIT */
/*
 * The second witness: the stock sqlite3 program opens each image, checks its integrity, and sums what must be equal
 * (INV-BANK). Tables that came from the user's file are digested (count, SHA3 of all rows) and compared with the
 * file's.
 *
 * The program gets its statements from a file as its standard input; no shell is involved.
 */
#include "bank.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const char check_sql[] =
        "PRAGMA integrity_check;\n"
        "SELECT (SELECT sum(balance) FROM uffdwp_bank_accounts), (SELECT sum(balance) FROM uffdwp_bank_tellers),"
        " (SELECT sum(balance) FROM uffdwp_bank_branches), (SELECT coalesce(sum(delta), 0) FROM uffdwp_bank_history),"
        " (SELECT count(*) FROM uffdwp_bank_history);\n";

static char *bank_verify_read_all(int fd)
{
	char buffer[4096];
	ssize_t length;
	sqlite3_str *text = sqlite3_str_new(NULL);
	while ((length = read(fd, buffer, sizeof(buffer))) > 0 || (length < 0 && errno == EINTR))
		if (length > 0)
			sqlite3_str_append(text, buffer, (int)length);
	sqlite3_str_appendall(text, "");
	char *all = sqlite3_str_finish(text);
	return all ? all : sqlite3_mprintf("%s", "");
}

static int bank_verify_spawn_sqlite(const char *database, const char *script, int output, pid_t *child)
{
	/* posix_spawn(3) does not write to them; its prototype is older than const. */
	const char *arguments[] = {"sqlite3",   "-init", "/dev/null", "-batch", "-bail",
	                           "-noheader", "-list", "-readonly", database, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, script, O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
	int result = posix_spawnp(child, "sqlite3", &actions, NULL, (char *const *)(uintptr_t)arguments, environ);
	posix_spawn_file_actions_destroy(&actions);
	return result ? -1 : 0;
}

/* What sqlite3 prints, or NULL; *status as of waitpid(2). The caller frees with sqlite3_free(). */
static char *bank_verify_run_sqlite(const char *database, const char *script, int *status)
{
	int ends[2];
	pid_t child = 0;
	char *output = NULL;
	char *absolute = realpath(database, NULL); /* so that its name is not taken for an option */
	if (!absolute || pipe2(ends, O_CLOEXEC) < 0) {
		free(absolute);
		return NULL;
	}
	int result = bank_verify_spawn_sqlite(absolute, script, ends[1], &child);
	free(absolute);
	close(ends[1]);
	if (result == 0) {
		output = bank_verify_read_all(ends[0]);
		waitpid(child, status, 0);
	}
	close(ends[0]);
	return output;
}

/* The same with the statements as a text, through a file in the output folder. */
static char *bank_verify_run_statements(const char *folder, const char *database, const char *statements, int *status)
{
	char *script = sqlite3_mprintf("%s/verify-%d.sql", folder, (int)getpid());
	char *output = NULL;
	FILE *file = script ? fopen(script, "we") : NULL;
	if (file) {
		int written = fputs(statements, file) >= 0;
		if (fclose(file) == 0 && written)
			output = bank_verify_run_sqlite(database, script, status);
		unlink(script);
	}
	sqlite3_free(script);
	return output;
}

static char *bank_verify_digest_script(char *const *tables)
{
	sqlite3_str *script = sqlite3_str_new(NULL);
	for (char *const *name = tables; name && *name; name++) {
		char *query = sqlite3_mprintf("SELECT * FROM \"%w\" NOT INDEXED", *name);
		sqlite3_str_appendf(script, "SELECT %Q, count(*), lower(hex(sha3_query(%Q, 256))) FROM \"%w\";\n",
		                    *name, query ? query : "", *name);
		sqlite3_free(query);
	}
	return sqlite3_str_finish(script);
}

int verifier_init(struct verifier *verifier, const struct bank *bank, const char *folder, const char *source)
{
	int status = 0;
	*verifier = (struct verifier){.folder = folder, .script = bank_verify_digest_script(bank->tables)};
	if (!source || !verifier->script)
		return 0;
	verifier->digest = bank_verify_run_statements(folder, source, verifier->script, &status);
	if (verifier->digest && status == 0)
		return 0;
	fprintf(stderr, "uffdwp-bank: sqlite3 cannot read %s: %s\n", source, verifier->digest ? verifier->digest : "");
	return -1;
}

void verifier_fini(struct verifier *verifier)
{
	sqlite3_free(verifier->script);
	sqlite3_free(verifier->digest);
}

/* "1|2|3" and a newline. 0, or -1 if there are not `count` numbers. */
static int bank_verify_parse_numbers(const char *text, long long *numbers, int count)
{
	for (int i = 0; i < count; i++) {
		char *end = NULL;
		numbers[i] = strtoll(text, &end, 10);
		if (end == text || *end != (i == count - 1 ? '\n' : '|'))
			return -1;
		text = end + 1;
	}
	return 0;
}

static int bank_verify_check_balances(const char *output, char *text, size_t size)
{
	long long sums[5]; /* accounts, tellers, branches, history; and the rows of the history */
	if (strncmp(output, "ok\n", 3) != 0) {
		snprintf(text, size, "sqlite3 says: %.200s", output);
		return -1;
	}
	if (bank_verify_parse_numbers(output + 3, sums, 5) < 0) {
		snprintf(text, size, "sqlite3 says: %.200s", output + 3);
		return -1;
	}
	int equal = sums[0] == sums[3] && sums[1] == sums[3] && sums[2] == sums[3];
	snprintf(text, size, "integrity ok, accounts %lld, tellers %lld, branches %lld, history %lld in %lld rows%s",
	         sums[0], sums[1], sums[2], sums[3], sums[4], equal ? "" : ": NOT equal");
	return equal ? 0 : -1;
}

static int bank_verify_check_digest(const struct verifier *verifier, const char *image, char *text, size_t size)
{
	int status = 0;
	if (!verifier->digest)
		return 0;
	char *digest = bank_verify_run_statements(verifier->folder, image, verifier->script, &status);
	int equal = digest && status == 0 && strcmp(digest, verifier->digest) == 0;
	size_t used = strlen(text);
	snprintf(text + used, size - used, equal ? "; tables as in the source" : "; tables DIFFER from the source");
	sqlite3_free(digest);
	return equal ? 0 : -1;
}

int verifier_merge(const char *delta, const char *to, char *text, size_t size)
{
	char *program = bank_beside("uffdwp-ctl");
	const char *arguments[] = {"uffdwp-ctl", "image", "restore", delta, "-o", to, NULL};
	pid_t child = 0;
	int status = -1;
	if (program && posix_spawn(&child, program, NULL, NULL, (char *const *)(uintptr_t)arguments, environ) == 0)
		waitpid(child, &status, 0);
	sqlite3_free(program);
	if (status)
		snprintf(text, size, "uffdwp-ctl image restore failed");
	return status ? -1 : 0;
}

int verifier_check(const struct verifier *verifier, const char *image, char *text, size_t size)
{
	int status = 0;
	char *output = bank_verify_run_statements(verifier->folder, image, check_sql, &status);
	if (!output) {
		snprintf(text, size, "cannot run the program sqlite3");
		return -1;
	}
	int result = bank_verify_check_balances(output, text, size);
	sqlite3_free(output);
	return result == 0 ? bank_verify_check_digest(verifier, image, text, size) : result;
}
