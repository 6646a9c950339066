/* SPDX-License-Identifier: MIT */
/*
 * See control.h. The socket is there while runtimes with control are: the first one that opens makes it, the last one
 * that closes takes it away. Threads that come meanwhile wait, without a lock: both may take long.
 */
#include "control/control.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/errno_name.h"
#include "base/forks.h"
#include "base/lock.h"
#include "base/trace.h"
#include "control/acts.h"
#include "control/answer.h"
#include "control/ask.h"
#include "control/serve.h"
#include "control/sockfile.h"
#include "kernel/pages.h"
#include "kernel/roster.h"
#include "region/meter.h"
#include "track/track.h"

enum control_state { CONTROL_CLOSED, CONTROL_OPEN, CONTROL_CHANGING };

static struct lock control_lock = LOCK_INIT;
static _Atomic uint32_t control_state = CONTROL_CLOSED; /* threads sleep on it while it is CHANGING */
static unsigned control_users;                          /* runtimes */

static void control_forget_in_child(void)
{
	lock_init(&control_lock);
	atomic_store(&control_state, CONTROL_CLOSED);
	control_users = 0;
	serve_forget();
	sockfile_forget();
	acts_forget();
}

/* Takes the lock when nothing is changing. */
static void control_settle(const struct kernel_ops *k)
{
	for (;;) {
		lock_take(&control_lock);
		if (atomic_load(&control_state) != CONTROL_CHANGING)
			return;
		lock_give(&control_lock);
		k->futex_wait((const uint32_t *)&control_state, CONTROL_CHANGING, 0);
	}
}

static void control_change(const struct kernel_ops *k, enum control_state state, int by)
{
	lock_take(&control_lock);
	control_users += (unsigned)by;
	atomic_store(&control_state, state);
	lock_give(&control_lock);
	k->futex_wake((const uint32_t *)&control_state, INT32_MAX);
}

/* ---- what is asked for ---- */

static const struct {
	const char *name;
	uint32_t bits;
} control_words[] = {
        {"0", 0},
        {"1", UFFDWP_CONTROL_LOOK | UFFDWP_CONTROL_SNAPSHOT},
        {"look", UFFDWP_CONTROL_LOOK},
        {"snapshot", UFFDWP_CONTROL_SNAPSHOT},
        {"arm", UFFDWP_CONTROL_ARM},
};

#define WORDS (sizeof(control_words) / sizeof(control_words[0]))

/* 1: the word is known, and its bits are added. */
static int control_take_word(const char *word, size_t length, uint32_t *bits)
{
	for (size_t i = 0; i < WORDS; i++) {
		if (strlen(control_words[i].name) != length || memcmp(control_words[i].name, word, length) != 0)
			continue;
		*bits |= control_words[i].bits;
		return 1;
	}
	return 0;
}

/* What the environment asks for; nothing where it cannot be understood, or is not the user's to ask. */
static uint32_t control_of_environment(void)
{
	const char *value = secure_getenv("UFFDWP_CONTROL");
	uint32_t bits = 0;

	while (value && *value) {
		size_t length = strcspn(value, ",");

		if (!control_take_word(value, length, &bits)) {
			TRACE("no control: UFFDWP_CONTROL is 1, 0, or a list of look, snapshot and arm");
			return 0;
		}
		value += length;
		value += *value == ',';
	}
	return bits;
}

static uint32_t control_of_options(const struct uffdwp_options *options)
{
	if (!(options->flags & UFFDWP_OPEN_CONTROL))
		return 0;
	return options->control ? options->control : UFFDWP_CONTROL_LOOK | UFFDWP_CONTROL_SNAPSHOT;
}

/* ---- the socket's life ---- */

static int control_make(const struct kernel_ops *k, const char *path, const struct control_calls *calls,
                        struct text *text)
{
	int listening = sockfile_open(k, path, text);

	if (listening < 0)
		return listening;
	answer_begin(calls);
	int error = serve_start(k, listening);

	if (error) {
		sockfile_close(k);
		return text_fail(text, error, "the control thread could not be started: %s", errno_text(error));
	}
	TRACE("control by %s", sockfile_path());
	return 0;
}

static int control_join(const struct kernel_ops *k, const char *path, const struct control_calls *calls,
                        struct text *text)
{
	int error = 0;

	roster_begin();
	forks_add(control_forget_in_child);
	control_settle(k);
	if (atomic_load(&control_state) == CONTROL_OPEN) {
		if (path && strcmp(path, sockfile_path()) != 0)
			error = text_fail(text, -EBUSY, "this process has a control socket already, at \"%s\"",
			                  sockfile_path());
		else
			control_users++;
		lock_give(&control_lock);
		return error;
	}
	atomic_store(&control_state, CONTROL_CHANGING);
	lock_give(&control_lock);
	error = control_make(k, path, calls, text);
	control_change(k, error ? CONTROL_CLOSED : CONTROL_OPEN, error ? 0 : 1);
	return error;
}

static void control_leave(const struct kernel_ops *k)
{
	control_settle(k);
	int is_last = --control_users == 0;

	if (is_last)
		atomic_store(&control_state, CONTROL_CHANGING);
	lock_give(&control_lock);
	if (!is_last)
		return;
	sockfile_close(k);
	serve_stop();
	control_change(k, CONTROL_CLOSED, 0);
}

static int control_open_socket(struct uffdwp *runtime, const struct uffdwp_options *options, uint32_t bits,
                               const struct control_calls *calls, struct text *text)
{
	int error = ask_built() ? 0
	                        : text_fail(text, -EOPNOTSUPP,
	                                    "the library was built without control (json-c): leave "
	                                    "UFFDWP_OPEN_CONTROL out");

	if (!error)
		error = control_join(runtime->k, options->control_path, calls, text);
	if (error)
		return error;
	runtime->control = bits;
	roster_add(&runtime->roster, ROSTER_RUNTIME, runtime, NULL);
	return 0;
}

/* What the environment asks for, and is not available, is no error of the program's. */
static int control_open(struct uffdwp *runtime, const struct uffdwp_options *options, const struct control_calls *calls,
                        struct text *text)
{
	uint32_t asked = control_of_options(options);
	uint32_t bits = asked | control_of_environment();
	struct text apart;

	if (!bits)
		return 0;
	if (asked)
		return control_open_socket(runtime, options, bits, calls, text);
	text_init_apart(&apart);
	if (control_open_socket(runtime, options, bits, calls, &apart))
		TRACE("no control: %s", apart.line);
	text_fini(&apart);
	return 0;
}

/* ---- runtimes and regions ---- */

int control_open_runtime(const struct kernel_ops *k, const struct uffdwp_options *options,
                         const struct control_calls *calls, struct text *text, struct uffdwp **out)
{
	struct uffdwp *runtime = NULL;
	int error = runtime_open(k, options, text, &runtime);

	if (error)
		return error;
	error = control_open(runtime, options, calls, text);
	if (error)
		runtime_close(runtime);
	else
		*out = runtime;
	return error;
}

int control_close_runtime(struct uffdwp *runtime)
{
	const struct kernel_ops *k = runtime->k;
	int has_control = runtime->control != 0;

	roster_hide(k, &runtime->roster);
	int error = runtime_close(runtime);

	if (error)
		roster_show(&runtime->roster);
	else if (has_control)
		control_leave(k);
	return error;
}

int control_open_region(struct uffdwp *runtime, struct region_plan *plan, struct uffdwp_region **out)
{
	struct uffdwp_region *region = NULL;
	int error = track_open_region(runtime, plan, &region);

	if (error)
		return error;
	if (runtime->control)
		roster_add(&region->roster, ROSTER_REGION, region, &runtime->roster);
	/* Best effort, errors ignored: without memory no times are taken. */
	if (runtime->control & UFFDWP_CONTROL_LOOK)
		atomic_store(&region->meter, pages_new(runtime->k, sizeof(struct meter)));
	*out = region;
	return 0;
}

int control_close_region(struct uffdwp_region *region)
{
	roster_hide(region->k, &region->roster);
	int error = runtime_check_users(region);

	/* Only now: a close that is refused shall end nothing. */
	if (!error && roster_has(&region->roster))
		acts_leave(region);
	if (!error)
		error = runtime_end(region->runtime, region);
	if (error)
		roster_show(&region->roster);
	return error;
}
