/* SPDX-License-Identifier: MIT */
/*
 * The writers. Each has a connection of its own and does one TPC-B transaction after the other, with a think time
 * between them, so that two writers leave something of two CPUs to the threads that save.
 */
#include "bank.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SQL_BEGIN, SQL_ACCOUNT, SQL_TELLER, SQL_BRANCH, SQL_HISTORY, SQL_COMMIT, SQL_COUNT };

static const char *const sql_texts[SQL_COUNT] = {
        "BEGIN IMMEDIATE",
        "UPDATE uffdwp_bank_accounts SET balance = balance + ?1 WHERE id = ?2",
        "UPDATE uffdwp_bank_tellers SET balance = balance + ?1 WHERE id = ?2",
        "UPDATE uffdwp_bank_branches SET balance = balance + ?1 WHERE id = ?2",
        "INSERT INTO uffdwp_bank_history(delta, account, teller, branch, time_ns) VALUES(?1, ?2, ?3, ?4, ?5)",
        "COMMIT",
};

struct session {
	sqlite3 *db;
	sqlite3_stmt *statements[SQL_COUNT];
};

static void bank_load_session_close(struct session *session)
{
	for (int i = 0; i < SQL_COUNT; i++)
		sqlite3_finalize(session->statements[i]);
	sqlite3_close(session->db);
}

static int bank_load_session_open(struct session *session, const struct bank *bank)
{
	*session = (struct session){.db = NULL};
	if (bank_connect(bank, &session->db) < 0)
		return -1;
	for (int i = 0; i < SQL_COUNT; i++)
		if (sqlite3_prepare_v2(session->db, sql_texts[i], -1, &session->statements[i], NULL) != SQLITE_OK)
			return bank_fail(session->db, sql_texts[i]);
	return 0;
}

/* Runs one statement with its numbers. */
static int bank_load_session_run(struct session *session, int which, const int64_t *numbers, int count)
{
	sqlite3_stmt *statement = session->statements[which];
	for (int i = 0; i < count; i++)
		sqlite3_bind_int64(statement, i + 1, numbers[i]);
	int result = sqlite3_step(statement);
	sqlite3_reset(statement);
	return result == SQLITE_DONE ? 0 : bank_fail(session->db, sql_texts[which]);
}

/* xorshift64*: G. Marsaglia, S. Vigna. */
static uint64_t bank_load_random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(0x2545F4914F6CDD1D);
}

static int64_t bank_load_random_below(uint64_t *state, int64_t bound)
{
	return (int64_t)(bank_load_random_next(state) % (uint64_t)bound);
}

static int bank_load_transaction(struct session *session, struct writer *writer, uint64_t now_ns)
{
	int64_t account = 1 + bank_load_random_below(&writer->random, writer->bank->accounts);
	int64_t branch = 1 + bank_load_random_below(&writer->random, writer->bank->branches);
	int64_t teller = (branch - 1) * 10 + 1 + bank_load_random_below(&writer->random, 10);
	int64_t delta = bank_load_random_below(&writer->random, 1999999) - 999999;
	const int64_t history[] = {delta, account, teller, branch, (int64_t)now_ns};
	if (bank_load_session_run(session, SQL_BEGIN, NULL, 0) < 0 ||
	    bank_load_session_run(session, SQL_ACCOUNT, (const int64_t[]){delta, account}, 2) < 0 ||
	    bank_load_session_run(session, SQL_TELLER, (const int64_t[]){delta, teller}, 2) < 0 ||
	    bank_load_session_run(session, SQL_BRANCH, (const int64_t[]){delta, branch}, 2) < 0 ||
	    bank_load_session_run(session, SQL_HISTORY, history, 5) < 0)
		return -1;
	return bank_load_session_run(session, SQL_COMMIT, NULL, 0);
}

static void bank_load_think(unsigned time_us)
{
	struct timespec time = {.tv_sec = time_us / 1000000, .tv_nsec = (long)(time_us % 1000000) * 1000};
	if (time_us)
		nanosleep(&time, NULL);
}

static int bank_load_write_until_stop(struct session *session, struct writer *writer)
{
	while (!writer->load->stop) {
		uint64_t start_ns = bank_now_ns();
		if (bank_load_transaction(session, writer, start_ns) < 0)
			return -1;
		struct sample sample = {.start_ns = start_ns, .latency_ns = bank_now_ns() - start_ns};
		if (samples_add(&writer->samples, sample) < 0)
			return -1;
		bank_load_think(writer->load->think_us);
	}
	return 0;
}

static void *bank_load_writer_main(void *argument)
{
	struct writer *writer = argument;
	struct session session;
	if (bank_load_session_open(&session, writer->bank) < 0 || bank_load_write_until_stop(&session, writer) < 0)
		writer->load->failed = 1;
	bank_load_session_close(&session);
	return NULL;
}

int load_start(struct bank_load *load, const struct bank *bank, const struct bank_options *options)
{
	load->think_us = options->think_us;
	load->threads = 0;
	while (load->threads < options->threads) {
		struct writer *writer = &load->writers[load->threads];
		*writer = (struct writer){.bank = bank, .load = load};
		writer->random = (options->seed + load->threads + 1) * UINT64_C(0x9E3779B97F4A7C15) | 1;
		if (pthread_create(&writer->thread, NULL, bank_load_writer_main, writer) != 0) {
			fprintf(stderr, "uffdwp-bank: cannot start a writer\n");
			load->failed = 1;
			return -1;
		}
		load->threads++;
	}
	return 0;
}

int load_run(struct bank_load *load, uint64_t seconds)
{
	for (uint64_t i = 0; i < seconds * 20 && !load->failed; i++)
		bank_load_think(50000);
	return load->failed ? -1 : 0;
}

int load_stop(struct bank_load *load, struct samples *all)
{
	int result = 0;
	load->stop = 1;
	for (unsigned i = 0; i < load->threads; i++)
		pthread_join(load->writers[i].thread, NULL);
	for (unsigned i = 0; i < load->threads; i++) {
		if (samples_append(all, &load->writers[i].samples) < 0)
			result = -1;
		free(load->writers[i].samples.list);
	}
	return load->failed ? -1 : result;
}
