/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Instead of lib/kernel.h, which reads the kernel's own packet: origin and checksum are as they were told. */
#ifndef MZN_KERNEL_H
#define MZN_KERNEL_H

#include "../lib/packet.h"
#include "facts.h"

#ifndef MZN_NO_ROUTE_IDENTITY
static __always_inline void read_origin(struct __sk_buff *skb, struct origin *origin)
{
	struct dry_run *run = shared_run();

	(void)skb;
	if (!run)
		return;
	origin->kind = run->facts.origin;
	origin->ifindex = run->facts.origin_ifindex;
	origin->netns_cookie = run->facts.origin_cookie;
	origin->family = run->facts.origin_family;
}
#endif

static __always_inline bool is_to_host(struct __sk_buff *skb)
{
	struct dry_run *run = shared_run();

	(void)skb;
	return run && !run->facts.other_host;
}

static __always_inline __u32 segment_size(struct __sk_buff *skb)
{
	struct dry_run *run = shared_run();

	(void)skb;
	return run ? run->facts.segment_size : 0;
}

static __always_inline bool read_checksum(struct __sk_buff *skb, struct deferred_checksum *checksum)
{
	struct dry_run *run = shared_run();

	(void)skb;
	if (!run || !run->facts.is_checksum_deferred)
		return false;
	checksum->start = run->facts.checksum_start;
	checksum->place = run->facts.checksum_place;
	return true;
}

#endif
