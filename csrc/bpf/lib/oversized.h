/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A packet that is longer than the tunnel carries. A VM does not learn the tunnel's MTU from its device, and would send
 * on for ever: it is told, as by a router.
 */
#ifndef MZN_OVERSIZED_H
#define MZN_OVERSIZED_H

#include <linux/udp.h>

#include "complaint.h"
#include "nd.h"
#include "told.h"

enum {
	GSO_BY_FRAGS = 0xffff,
	DONT_FRAGMENT = bpf_htons(0x4000),
	MTU_IPV6 = 1280, /* that every link has: no sender goes below */
};

/*
 * A VM can write what a device would refuse; outer fragments would hide that its MTU is wrong. Of a frame that is
 * segmented later, each segment has at least an IPv4 and a UDP header around its data.
 */
static __always_inline bool is_oversized(struct __sk_buff *skb)
{
	if (skb->gso_size == GSO_BY_FRAGS)
		return false; /* SCTP's segments are as its sender made them, and nobody else can ask for that */
	if (skb->gso_size)
		return skb->gso_size + sizeof(struct iphdr) + sizeof(struct udphdr) > config.mtu;
	return skb->len > config.mtu + ETH_HLEN;
}

/* Would its sender do anything but send less at once? IPv6 always forbids that others fragment. */
static __always_inline bool heeds_mtu(struct __sk_buff *skb, const struct frame *frame)
{
	__be16 fragment;

	if (frame->ethertype == ETHERTYPE_IPV6)
		return config.mtu >= MTU_IPV6;
	return !bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, frag_off), &fragment, sizeof(fragment)) &&
	       fragment & DONT_FRAGMENT;
}

/* May the sender be told? A long trailer is not its packet's, and ARP has no end. */
__noinline int judge_oversized(struct __sk_buff *skb, struct frame *frame, struct mzn_sender *sender)
{
	return frame && sender && frame->end > config.mtu + ETH_HLEN && !is_multicast(frame) &&
	       heeds_mtu(skb, frame) && may_complain(skb, frame) && !is_nd(skb, frame) &&
	       owns(sender, &frame->source_mac, &frame->source) && may_tell(sender->slot);
}

#endif
