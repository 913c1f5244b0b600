/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How often an endpoint has been told something that it did not ask for. Of its per-CPU entries in `traffic` that of the
 * first CPU has the one state of all, or a sender that goes from CPU to CPU would be told more.
 */
#ifndef MZN_TOLD_H
#define MZN_TOLD_H

#include <stdbool.h>

#include "maps.h"

enum {
	TOLD_MOST = 100, /* in a second */
	TOLD_BITS = 8, /* of the state that hold how often */
	SECOND = 1000000000, /* in nanoseconds */
};

/* Counts it at once. Of two CPUs at the same moment one is late, and its packet is not answered. */
static __always_inline bool may_tell(__u32 slot)
{
	struct mzn_traffic *of = bpf_map_lookup_percpu_elem(&traffic, &slot, 0);
	__u64 now = bpf_ktime_get_ns() / SECOND << TOLD_BITS;
	__u64 before, after;

	if (!of)
		return false;
	before = *(volatile __u64 *)&of->told;
	after = (before >> TOLD_BITS << TOLD_BITS == now ? before : now) + 1;
	return after - now <= TOLD_MOST && __sync_val_compare_and_swap(&of->told, before, after) == before;
}

#endif
