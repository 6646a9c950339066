/* SPDX-License-Identifier: MIT */
/*
 * Follows what happens to the mappings of an async track: mremap(2) takes registration and marks along, munmap(2) ends
 * them. The kernel holds whoever does that until the event was read.
 *
 * The event is read with tracks_lock held for writing, and acted on before the lock is given back: so when the caller
 * of munmap(2) goes on and adds what he maps there next, the old range is gone already.
 *
 * Threads: one, `uffdwp-track`, with all signals blocked. Never: wait for tracks_lock while it holds an event.
 */
#include <errno.h>
#include <stdint.h>

#include "base/signals.h"
#include "base/trace.h"
#include "fault/loop.h"
#include "track/track.h"

#define MESSAGES 16

enum { TOKEN_EVENTS, TOKEN_KICK };

static void take(struct uffdwp_track *track, const struct uffd_msg *message)
{
	switch (message->event) {
	case UFFD_EVENT_REMAP:
		TRACE("track %p: %llu bytes moved from %#llx to %#llx", (void *)track,
		      (unsigned long long)message->arg.remap.len, (unsigned long long)message->arg.remap.from,
		      (unsigned long long)message->arg.remap.to);
		track_move(track, message->arg.remap.from, message->arg.remap.to, message->arg.remap.len);
		break;
	case UFFD_EVENT_UNMAP:
		/* Not by the event alone: what was mapped there since, and added, is registered. */
		track_vanish(track, message->arg.remove.start, message->arg.remove.end);
		break;
	default:
		break;
	}
}

static void drain(struct uffdwp_track *track)
{
	struct uffd_msg messages[MESSAGES];
	ssize_t got;

	pthread_rwlock_wrlock(&tracks_lock);
	do {
		got = track->k->uffd_read(track->uffd, messages, MESSAGES);
		for (ssize_t i = 0; i < got / (ssize_t)sizeof(messages[0]); i++)
			take(track, &messages[i]);
	} while (got > 0);
	pthread_rwlock_unlock(&tracks_lock);
}

static void *follow_main(void *argument)
{
	struct uffdwp_track *track = argument;
	struct loop_event events[2];
	int stop = 0;

	pthread_setname_np(pthread_self(), "uffdwp-track");
	while (!stop) {
		int count = loop_wait(track->follower.loop, events, 2, UINT64_MAX);

		for (int i = 0; i < count; i++) {
			stop |= events[i].token == TOKEN_KICK;
			if (events[i].token == TOKEN_EVENTS)
				drain(track);
		}
		stop |= count < 0;
	}
	return NULL;
}

static int start_thread(struct uffdwp_track *track)
{
	sigset_t before;

	signals_block(&before);
	int error = -pthread_create(&track->follower.thread, NULL, follow_main, track);

	signals_restore(&before);
	return error;
}

static void close_follower(struct uffdwp_track *track)
{
	if (track->follower.loop)
		loop_free(track->follower.loop);
	track->k->close(track->follower.kick);
	track->follower.loop = NULL;
}

int follow_start(struct uffdwp_track *track)
{
	struct follower *follower = &track->follower;

	follower->kick = track->k->eventfd();
	if (follower->kick < 0)
		return follower->kick;
	/* epoll: a request of io_uring would keep the uffd, and with it the registrations, alive. */
	int error = loop_new(track->k, 2, 1, &follower->loop);

	if (!error)
		error = loop_add(follower->loop, track->uffd, TOKEN_EVENTS);
	if (!error)
		error = loop_add(follower->loop, follower->kick, TOKEN_KICK);
	if (!error)
		error = start_thread(track);
	if (error)
		close_follower(track);
	follower->running = !error;
	return error;
}

void follow_stop(struct uffdwp_track *track)
{
	const uint64_t one = 1;

	if (!track->follower.running)
		return;
	while (track->k->write(track->follower.kick, &one, sizeof(one)) < 0)
		;
	pthread_join(track->follower.thread, NULL);
	close_follower(track);
}
