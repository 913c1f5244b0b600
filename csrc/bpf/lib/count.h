/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counting. Per CPU and without atomics: a TC program is not interrupted by itself on its CPU. */
#ifndef MZN_COUNT_H
#define MZN_COUNT_H

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

static __always_inline void count_sent(__u32 slot, __u32 verdict, __u32 bytes)
{
	struct mzn_traffic *of = bpf_map_lookup_elem(&traffic, &slot);

	if (of)
		add(verdict < MZN_LIMIT_FIRST_DROP ? &of->sent : &of->dropped, bytes);
}

static __always_inline void count_received(__u32 slot, __u32 bytes)
{
	struct mzn_traffic *of = bpf_map_lookup_elem(&traffic, &slot);

	if (of)
		add(&of->received, bytes);
}

#endif
