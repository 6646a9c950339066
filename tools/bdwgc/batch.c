/* SPDX-License-Identifier: MIT */
/*
 * Free lists for threads, in manual mode too.
 *
 * A thread allocates small objects from a list of its own, which the collector fills by GC_generic_malloc_many() with a
 * block's worth at a time. In manual mode version 8.2 gives one object at a time there: it fears that the list's links,
 * which it writes into objects, would have to be reported as dirty. Here the kernel sees them as it sees every write.
 * What that caution costs: each allocation takes the lock, objects get a granule larger than they need (80 bytes became
 * 96), and collections begin only when the heap is full, so that it grows larger.
 *
 * So this library stands before GC_generic_malloc_many() as well, and does there what the collector does without manual
 * mode: a little collecting, if it is time for it, then a batch. The first object comes from the collector (which
 * sweeps or finds a block if its free list is empty), the rest is cut off that list, which the collector shows for such
 * purpose ("free lists for inlined allocators", mallocx.c).
 *
 * Never: a batch that is reachable from nowhere. Links of pointer-free objects are not scanned, so the whole batch is
 * put where the thread's list begins, under the allocation lock; that is where the collector looks for it.
 */
#include "adapter.h"

#include <gc/gc_inline.h>
#include <gc/gc_mark.h>

#define BATCH_BYTES 4096

/* Exported by the collector, and declared in no header of it. */
extern void **const GC_objfreelist_ptr;
extern void **const GC_aobjfreelist_ptr;
extern void GC_CALL GC_incr_bytes_allocd(size_t bytes);

typedef void(GC_CALL *many_fn)(size_t bytes, int kind, void **result);

struct batch {
	size_t bytes; /* of an object */
	void **list;  /* of the collector: free objects of this size and kind */
	void *first;  /* allocated already */
	void **result;
};

static many_fn batch_real_many(void)
{
	static _Atomic(many_fn) known;
	many_fn real = atomic_load(&known);
	if (!real) {
		*(void **)&real = adapter_real_function("GC_generic_malloc_many");
		atomic_store(&known, real);
	}
	return real;
}

/* Under the allocation lock. An object on a free list begins with the link to the next. */
static void *GC_CALLBACK batch_cut_off(void *argument)
{
	struct batch *batch = argument;
	void **last = batch->first;
	size_t taken = 0;
	*last = *batch->list;
	while (*last && taken + 2 * batch->bytes <= BATCH_BYTES) {
		last = *last;
		taken += batch->bytes;
	}
	*batch->list = *last;
	*last = NULL;
	GC_incr_bytes_allocd(taken);
	*batch->result = batch->first;
	return argument;
}

/* What to ask for to get objects of exactly `bytes`; 0: that cannot be asked for. */
static size_t batch_request_bytes(size_t bytes)
{
	size_t request = bytes - (GC_get_all_interior_pointers() ? 1 : 0);
	return bytes && GC_get_size_map_at((int)request) == bytes ? request : 0;
}

UFFDWP_GC_EXPORT void GC_CALL GC_generic_malloc_many(size_t bytes, int kind, void **result)
{
	if (atomic_load_explicit(&pay_wanted, memory_order_relaxed))
		pay_switch_on();
	bool plain = kind == GC_I_NORMAL || kind == GC_I_PTRFREE;
	size_t request = adapter.on && plain && bytes < BATCH_BYTES ? batch_request_bytes(bytes) : 0;
	if (!request) {
		batch_real_many()(bytes, kind, result);
		return;
	}
	(void)GC_collect_a_little();
	void **lists = kind == GC_I_NORMAL ? GC_objfreelist_ptr : GC_aobjfreelist_ptr;
	struct batch batch = {bytes, &lists[bytes / GC_GRANULE_BYTES], GC_malloc_kind_global(request, kind), result};
	if (batch.first)
		GC_call_with_alloc_lock(batch_cut_off, &batch);
	else
		*result = NULL;
}
