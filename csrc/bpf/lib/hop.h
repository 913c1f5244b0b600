/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A packet that leaves its network passes one router, the agent: it loses a hop, and if that was its last, its sender
 * is told so in the gateway's name. That is off the fast path, so in functions of their own.
 */
#ifndef MZN_HOP_H
#define MZN_HOP_H

#include "answer.h"
#include "checksum.h"
#include "icmp.h"

enum {
	QUOTED = 8, /* bytes of the refused packet behind its IP header */
	REPLY_HOPS = 64,
};

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

struct expired_ipv4 {
	struct iphdr ip;
	struct icmp icmp;
	struct iphdr quoted;
	__u8 data[QUOTED];
};

__noinline int expire_ipv4(struct __sk_buff *skb, struct frame *frame, struct mzn_ip *gateway)
{
	struct expired_ipv4 reply = {};
	struct macs macs;

	if (!frame || !gateway)
		return MZN_DROP_UNREADABLE;
	/* With IP options the quotation would be longer; that is not worth a variable-length copy. */
	if (frame->payload != ETH_HLEN + sizeof(reply.quoted) || frame->payload + QUOTED > frame->end ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &reply.quoted, sizeof(reply.quoted) + QUOTED))
		return MZN_DROP_HOP_LIMIT;
	reply.ip.version = 4;
	reply.ip.ihl = sizeof(reply.ip) / 4;
	reply.ip.tot_len = bpf_htons(sizeof(reply));
	reply.ip.ttl = REPLY_HOPS;
	reply.ip.protocol = IPPROTO_ICMP;
	reply.ip.saddr = gateway->words[3];
	reply.ip.daddr = frame->source.words[3];
	reply.ip.check = fold(sum_of(&reply.ip, sizeof(reply.ip)));
	reply.icmp.type = TIME_EXCEEDED_IPV4;
	reply.icmp.checksum = fold(sum_of(&reply.icmp, sizeof(reply) - sizeof(reply.ip)));
	to_sender(&macs, frame);
	if (make_room(skb, frame, ETH_HLEN + sizeof(reply), sizeof(reply.ip)) ||
	    bpf_skb_store_bytes(skb, 0, &macs, sizeof(macs), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &reply, sizeof(reply), 0))
		return MZN_DROP_UNREADABLE;
	return MZN_PASS_GATEWAY_ANSWERED;
}

struct expired_ipv6 {
	struct pseudo_header pseudo; /* not sent */
	struct icmp icmp;
	struct ipv6hdr quoted;
	__u8 data[QUOTED];
};

__noinline int expire_ipv6(struct __sk_buff *skb, struct frame *frame, struct mzn_ip *gateway)
{
	struct expired_ipv6 reply = {};
	const __u32 length = sizeof(reply) - sizeof(reply.pseudo);
	struct ipv6hdr ip = { .version = 6, .nexthdr = IPPROTO_ICMPV6, .hop_limit = REPLY_HOPS };
	struct macs macs;

	if (!frame || !gateway)
		return MZN_DROP_UNREADABLE;
	if (HEADERS + QUOTED > frame->end ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &reply.quoted, sizeof(reply.quoted) + QUOTED))
		return MZN_DROP_HOP_LIMIT;
	__builtin_memcpy(reply.pseudo.source, gateway->words, 16);
	__builtin_memcpy(reply.pseudo.destination, frame->source.words, 16);
	reply.pseudo.length = bpf_htonl(length);
	reply.pseudo.protocol = bpf_htonl(IPPROTO_ICMPV6);
	reply.icmp.type = TIME_EXCEEDED_IPV6;
	reply.icmp.checksum = fold(sum_of(&reply, sizeof(reply)));
	ip.payload_len = bpf_htons(length);
	__builtin_memcpy(&ip.saddr, reply.pseudo.source, 32);
	to_sender(&macs, frame);
	if (make_room(skb, frame, HEADERS + length, sizeof(ip)) ||
	    bpf_skb_store_bytes(skb, 0, &macs, sizeof(macs), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	    bpf_skb_store_bytes(skb, HEADERS, &reply.icmp, length, 0))
		return MZN_DROP_UNREADABLE;
	return MZN_PASS_GATEWAY_ANSWERED;
}

/* Errors are never answered with errors (RFC 1122, 3.2.2; RFC 4443, 2.4). */
static __always_inline bool is_icmp_error(struct __sk_buff *skb, const struct frame *frame)
{
	__u8 type;

	if (frame->protocol != IPPROTO_ICMP && frame->protocol != IPPROTO_ICMPV6)
		return false;
	/* A type that is not there may be anything. */
	if (frame->payload >= frame->end || bpf_skb_load_bytes(skb, frame->payload, &type, sizeof(type)))
		return true;
	if (frame->protocol == IPPROTO_ICMPV6)
		return type < ECHO_REQUEST_IPV6;
	return type != ECHO_REQUEST_IPV4 && type != TIMESTAMP_IPV4;
}

/* May its sender be told? */
static __always_inline int judge_expired(struct __sk_buff *skb, const struct frame *frame)
{
	if (frame->protocol == NO_PROTOCOL || is_icmp_error(skb, frame))
		return MZN_DROP_HOP_LIMIT;
	return MZN_PASS_GATEWAY_ANSWERED;
}

/* "Time exceeded" from the sender's gateway, or a plain drop if it has none in this family. */
static __always_inline int expire(struct __sk_buff *skb, struct frame *frame, struct mzn_sender *sender)
{
	/* Gateways are ordered by family, so an IPv6 one may stand first. */
	for (int i = 0; i < MZN_LIMIT_ADDRESSES; i++) {
		if (sender->gateways[i].family != frame->destination.family)
			continue;
		return frame->destination.family == 4 ? expire_ipv4(skb, frame, &sender->gateways[i]) :
							expire_ipv6(skb, frame, &sender->gateways[i]);
	}
	return MZN_DROP_HOP_LIMIT;
}

#endif
