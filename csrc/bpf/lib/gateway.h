/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The gateway, which is the agent: it answers echo requests, and nothing else that is sent to it. Replies go back to
 * the sender alone, from the virtual MAC. Off the fast path, so in a function of its own.
 */
#ifndef MZN_GATEWAY_H
#define MZN_GATEWAY_H

#include "answer.h"
#include "icmp.h"

static __always_inline bool is_gateway(const struct mzn_sender *sender, const struct mzn_network *network,
				       const struct mzn_ip *ip)
{
	if (network && same_ip(&network->gateway, ip))
		return true;
	for (int i = 0; i < MZN_LIMIT_ADDRESSES; i++)
		if (same_ip(&sender->gateways[i], ip))
			return true;
	return false;
}

static __always_inline int turn_ipv4(struct __sk_buff *skb, const struct frame *frame)
{
	__be32 turned[2] = { frame->destination.words[3], frame->source.words[3] };

	return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), turned, sizeof(turned), 0);
}

static __always_inline int turn_ipv6(struct __sk_buff *skb, const struct frame *frame)
{
	__u32 turned[8];

	__builtin_memcpy(turned, frame->destination.words, 16);
	__builtin_memcpy(turned + 4, frame->source.words, 16);
	return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), turned, sizeof(turned), 0);
}

/* An echo request to the gateway becomes its reply in place; anything else that is meant for it is refused. */
__noinline int answer_echo(struct __sk_buff *skb, struct frame *frame)
{
	bool is_ipv4 = frame && frame->destination.family == 4;
	__u8 request = is_ipv4 ? ECHO_REQUEST_IPV4 : ECHO_REQUEST_IPV6;
	__u8 reply = is_ipv4 ? ECHO_REPLY_IPV4 : ECHO_REPLY_IPV6;
	struct macs macs;
	__u8 type;

	if (!frame)
		return MZN_DROP_UNREADABLE;
	if (frame->fragment || frame->protocol != (is_ipv4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) ||
	    frame->payload + sizeof(struct icmp) > frame->end ||
	    bpf_skb_load_bytes(skb, frame->payload, &type, sizeof(type)) || type != request)
		return MZN_DROP_NO_DESTINATION;
	to_sender(&macs, frame);
	/* Exchanged addresses leave every checksum as it is; only the type has to be made good. */
	if (bpf_l4_csum_replace(skb, frame->payload + offsetof(struct icmp, checksum), bpf_htons(request << 8),
				bpf_htons(reply << 8), sizeof(__be16)) ||
	    bpf_skb_store_bytes(skb, frame->payload, &reply, sizeof(reply), 0) ||
	    (is_ipv4 ? turn_ipv4(skb, frame) : turn_ipv6(skb, frame)) ||
	    bpf_skb_store_bytes(skb, 0, &macs, sizeof(macs), 0))
		return MZN_DROP_UNREADABLE;
	return MZN_PASS_GATEWAY_ANSWERED;
}

#endif
