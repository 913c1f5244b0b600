/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the agent says in the gateway's name: echo replies, and "time exceeded" when a routed packet has used up
 * its hops. Both go back to the sender alone, from the virtual MAC. Off the fast path, so in functions of their own.
 */
#ifndef MZN_GATEWAY_H
#define MZN_GATEWAY_H

#include "checksum.h"
#include "identity.h"
#include "room.h"

enum {
	QUOTED = 8, /* bytes of the refused packet behind its IP header */
	REPLY_HOPS = 64,
	/* <linux/icmp.h> needs the C library's headers, which do not exist for this target. */
	ECHO_REPLY_IPV4 = 0,
	ECHO_REQUEST_IPV4 = 8,
	TIME_EXCEEDED_IPV4 = 11,
	TIMESTAMP_IPV4 = 13,
	TIME_EXCEEDED_IPV6 = 3,
	ECHO_REQUEST_IPV6 = 128,
	ECHO_REPLY_IPV6 = 129,
};

/* The first words of every ICMP and ICMPv6 message. */
struct icmp {
	__u8 type, code;
	__sum16 checksum;
	__be32 rest;
};

struct macs {
	__u8 destination[ETH_ALEN], source[ETH_ALEN];
};

static __always_inline bool is_gateway(const struct mzn_interface *sender, const struct mzn_network *network,
				       const struct mzn_ip *ip)
{
	if (network && same_ip(&network->gateway, ip))
		return true;
	for (int i = 0; i < MZN_LIMIT_ADDRESSES; i++)
		if (same_ip(&sender->gateways[i], ip))
			return true;
	return false;
}

static __always_inline void to_sender(struct macs *macs, const struct frame *frame)
{
	__builtin_memcpy(macs->destination, frame->source_mac.bytes, ETH_ALEN);
	for (int i = 0; i < ETH_ALEN; i++)
		macs->source[i] = config.virtual_mac.bytes[i];
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

/* "Time exceeded" from the sender's gateway, or a plain drop if it has none in this family. */
static __always_inline int expire(struct __sk_buff *skb, struct frame *frame, struct mzn_interface *sender)
{
	if (frame->protocol == NO_PROTOCOL || is_icmp_error(skb, frame))
		return MZN_DROP_HOP_LIMIT;
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
