/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A packet that leaves its network passes one router, the agent: it loses a hop, and if that was its last, its sender
 * is told so in the gateway's name.
 */
#ifndef MZN_HOP_H
#define MZN_HOP_H

#include "complaint.h"

static __always_inline int decrement_ipv4(struct __sk_buff *skb, const struct frame *frame)
{
	const __u32 ttl = ETH_HLEN + offsetof(struct iphdr, ttl), check = ETH_HLEN + offsetof(struct iphdr, check);
	__u8 lower = frame->hop_limit - 1;
	/* TTL is the first byte of a 16-bit word; the protocol in the second is the same before and after. */
	__be16 before = bpf_htons(frame->hop_limit << 8);
	__be16 after = bpf_htons(lower << 8);

	if (bpf_l3_csum_replace(skb, check, before, after, sizeof(after)))
		return MZN_DROP_UNREADABLE;
	return bpf_skb_store_bytes(skb, ttl, &lower, sizeof(lower), 0) ? MZN_DROP_UNREADABLE : 0;
}

/* At egress the checksum of an IPv6 packet does not cover its hop limit: nothing else to mend. */
static __always_inline int decrement_ipv6(struct __sk_buff *skb, const struct frame *frame)
{
	__u8 lower = frame->hop_limit - 1;

	return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, hop_limit), &lower, sizeof(lower), 0) ?
		       MZN_DROP_UNREADABLE :
		       0;
}

static __always_inline bool is_routed(const struct packet *packet)
{
	const struct mzn_sender *sender = packet->sender;
	const struct mzn_ip *destination = &packet->frame.destination;

	for (int i = 0; i < MZN_LIMIT_ADDRESSES; i++)
		if (on_link(&sender->addresses[i].ip, sender->addresses[i].prefix_length, destination))
			return false;
	return packet->further != FURTHER_ON_LINK;
}

/*
 * What a packet has left if it is routed, and else what it came with. Of a number the verifier knows as little in either
 * case: of an answer, it would follow all that comes next twice.
 */
static __always_inline void count_hops(struct packet *packet)
{
	packet->hop_limit = packet->frame.hop_limit - is_routed(packet);
}

static __always_inline bool has_expired(const struct packet *packet)
{
	return packet->frame.hop_limit <= 1 && packet->hop_limit != packet->frame.hop_limit;
}

static __always_inline int take_hop(struct __sk_buff *skb, const struct packet *packet)
{
	const struct frame *frame = &packet->frame;

	if (packet->hop_limit == frame->hop_limit)
		return 0;
	return frame->destination.family == 4 ? decrement_ipv4(skb, frame) : decrement_ipv6(skb, frame);
}

/* May its sender be told? */
static __always_inline int judge_expired(struct __sk_buff *skb, const struct frame *frame)
{
	return may_complain(skb, frame) ? MZN_PASS_GATEWAY_ANSWERED : MZN_DROP_HOP_LIMIT;
}

#endif
