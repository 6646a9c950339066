/* SPDX-License-Identifier: MIT */
/*
 * Follows what happens to the mappings of an async track: mremap(2) takes registration and wp bits along, munmap(2)
 * ends them. The kernel lets the calling thread sleep until the event was read.
 *
 * The event is read with tracks_lock held for writing, and acted on before the lock is given back: so when the caller
 * of munmap(2) goes on and adds what it maps there next, the old range is gone already.
 *
 * Threads: one, `uffdwp-track`, with all signals blocked. Never: wait for tracks_lock between the read of an event and
 * its handling.
 */
#include <errno.h>
#include <stdint.h>

#include "base/thread.h"
#include "base/trace.h"
#include "io/loop.h"
#include "kernel/own.h"
#include "track/track.h"

#define MESSAGES 16

enum { TOKEN_EVENTS, TOKEN_KICK };

static void follow_take(struct uffdwp_track *track, const struct uffd_msg *message)
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

static void follow_drain(struct uffdwp_track *track)
{
	sigset_t before;
	struct uffd_msg messages[MESSAGES];
	ssize_t got;

	lock_shared_write(&tracks_lock, &before);
	do {
		got = own_check(track->k, track->uffd, track->tag);
		if (!got)
			got = track->k->uffd_read(track->uffd, messages, MESSAGES);
		for (ssize_t i = 0; i < got / (ssize_t)sizeof(messages[0]); i++)
			follow_take(track, &messages[i]);
	} while (got > 0);
	if (got == -EAGAIN) /* all was read, and no scan runs */
		atomic_store(&track->doubtful, 0);
	lock_shared_give(&tracks_lock, &before);
}

static void *follow_main(void *argument)
{
	struct uffdwp_track *track = argument;
	struct loop_event events[2];
	int stop = 0;

	thread_begin("uffdwp-track");
	while (!stop) {
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		int count = loop_wait(track->follower.loop, events, 2, UINT64_MAX);

		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);

		for (int i = 0; i < count; i++) {
			stop |= events[i].token == TOKEN_KICK;
			if (events[i].token == TOKEN_EVENTS)
				follow_drain(track);
		}
		stop |= count < 0;
	}
	return NULL;
}

static void follow_close_follower(struct uffdwp_track *track)
{
	if (track->follower.loop)
		loop_free(track->follower.loop);
	own_close(track->k, track->follower.kick, track->follower.tag);
	track->follower.loop = NULL;
}

int follow_start(struct uffdwp_track *track)
{
	struct follower *follower = &track->follower;

	follower->tag = own_new();
	follower->kick = own_eventfd(track->k, follower->tag);
	if (follower->kick < 0)
		return follower->kick;
	/* epoll: a request of io_uring would keep the uffd, and with it the registrations, alive. */
	int error = loop_new(track->k, 2, 1, &follower->loop);

	if (!error)
		error = loop_add(follower->loop, track->uffd, TOKEN_EVENTS);
	if (!error)
		error = loop_add(follower->loop, follower->kick, TOKEN_KICK);
	if (!error)
		error = thread_spawn(&follower->thread, NULL, follow_main, track);
	if (error)
		follow_close_follower(track);
	follower->running = !error;
	return error;
}

void follow_stop(struct uffdwp_track *track)
{
	if (!track->follower.running)
		return;
	/* Where the program has closed it: epoll_wait(2) is a cancellation point. */
	if (own_kick(track->k, track->follower.kick, track->follower.tag))
		pthread_cancel(track->follower.thread);
	pthread_join(track->follower.thread, NULL);
	follow_close_follower(track);
}
