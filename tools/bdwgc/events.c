/* SPDX-License-Identifier: MIT */
/*
 * The collector's event, shared with the program.
 *
 * The collector has place for one handler. It is ours; a handler that the program had set before, or sets later, is
 * called first. For the later ones this library stands before the collector's own functions, which is why it is linked
 * before it; the real ones are found in the collector's library.
 *
 * Handlers run under the allocation lock. Between two stops it is read once for each event: a program that changes
 * handlers while another thread collects gets the event in the one or in the other.
 */
#include "adapter.h"

#include <stdatomic.h>

static _Atomic(GC_on_collection_event_proc) chained;
static atomic_bool installed;

static GC_on_collection_event_proc events_real_get(void)
{
	GC_on_collection_event_proc(GC_CALL * get)(void);
	*(void **)&get = adapter_real_function("GC_get_on_collection_event");
	return get();
}

static void events_real_set(GC_on_collection_event_proc handler)
{
	void(GC_CALL * set)(GC_on_collection_event_proc);
	*(void **)&set = adapter_real_function("GC_set_on_collection_event");
	set(handler);
}

static void GC_CALLBACK events_on_event(GC_EventType event)
{
	GC_on_collection_event_proc next = atomic_load(&chained);
	if (next)
		next(event);
	if (event == GC_EVENT_PRE_STOP_WORLD) {
		pay_stop_begins();
		feed_prepare();
	} else if (event == GC_EVENT_MARK_START) {
		feed_collect();
	} else if (event == GC_EVENT_PRE_START_WORLD) {
		pay_stop_ends();
	} else if (event == GC_EVENT_RECLAIM_END) {
		feed_end();
		pay_collection_ends();
	}
}

void events_install(void)
{
	GC_on_collection_event_proc before = events_real_get();
	if (before != events_on_event)
		atomic_store(&chained, before);
	atomic_store(&installed, true);
	events_real_set(events_on_event);
}

void events_remove(void)
{
	atomic_store(&installed, false);
	events_real_set(atomic_load(&chained));
}

bool events_installed(void)
{
	return events_real_get() == events_on_event;
}

UFFDWP_GC_EXPORT void GC_CALL GC_set_on_collection_event(GC_on_collection_event_proc handler)
{
	if (atomic_load(&installed))
		atomic_store(&chained, handler);
	else
		events_real_set(handler);
}

UFFDWP_GC_EXPORT GC_on_collection_event_proc GC_CALL GC_get_on_collection_event(void)
{
	return atomic_load(&installed) ? atomic_load(&chained) : events_real_get();
}
