/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counting. Per CPU and without atomics: a TC program is not interrupted by itself on its CPU. The reasons of drops are
 * shared by the CPUs.
 */
#ifndef MZN_COUNT_H
#define MZN_COUNT_H

#include <stdbool.h>

#include "maps.h"

static __always_inline void add(struct mzn_counter *counter, __u32 bytes)
{
	counter->packets += 1;
	counter->bytes += bytes;
}

static __always_inline void count_verdict(enum mzn_program program, __u32 verdict, __u32 bytes)
{
	__u32 index = program * MZN_LIMIT_VERDICTS + verdict;
	struct mzn_counter *counter = bpf_map_lookup_elem(&verdicts, &index);

	if (counter)
		add(counter, bytes);
}

/*
 * Counted before the sum that it is part of: so whoever reads the sum first, and then less here, knows that a reason made
 * room for another. The first packet of a reason takes two look-ups, as another CPU may add the same one.
 */
static __always_inline void count_reason(__u64 instance, __u32 verdict, __u32 bytes)
{
	struct mzn_drop_key key = { .instance = instance, .verdict = verdict };
	struct mzn_counter none = {}, *counter = bpf_map_lookup_elem(&drops, &key);

	if (!counter) {
		bpf_map_update_elem(&drops, &key, &none, BPF_NOEXIST);
		counter = bpf_map_lookup_elem(&drops, &key);
	}
	if (!counter)
		return;
	__sync_fetch_and_add(&counter->packets, 1);
	__sync_fetch_and_add(&counter->bytes, bytes);
}

/* Not inline, so that packets which go on need no register for it. */
static __noinline void count_refused(__u32 slot, __u32 verdict, __u32 bytes, bool is_sent)
{
	struct mzn_traffic *of = bpf_map_lookup_elem(&traffic, &slot);

	if (!of)
		return;
	count_reason(of->instance, verdict, bytes);
	add(is_sent ? &of->dropped : &of->undelivered, bytes);
}

static __always_inline void count_sent(__u32 slot, __u32 verdict, __u32 bytes)
{
	struct mzn_traffic *of;

	if (verdict >= MZN_LIMIT_FIRST_DROP) {
		count_refused(slot, verdict, bytes, true);
		return;
	}
	of = bpf_map_lookup_elem(&traffic, &slot);
	if (of)
		add(&of->sent, bytes);
}

static __always_inline void count_received(__u32 slot, __u32 bytes)
{
	struct mzn_traffic *of = bpf_map_lookup_elem(&traffic, &slot);

	if (of)
		add(&of->received, bytes);
}

static __always_inline void count_undelivered(__u32 slot, __u32 verdict, __u32 bytes)
{
	count_refused(slot, verdict, bytes, false);
}

#endif
