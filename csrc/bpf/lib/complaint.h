/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors: what is wrong with a packet is told to its sender, in place of the packet. That is off the fast path, so in
 * functions of their own: the first one knows what to say, the others only how.
 */
#ifndef MZN_COMPLAINT_H
#define MZN_COMPLAINT_H

#include "answer.h"
#include "checksum.h"
#include "icmp.h"
#include "lookup.h"

enum {
	COMPLAINT_HOPS = 64,
	QUOTED_OF_EXPIRED = 8,
	QUOTED_OF_OVERSIZED = 48, /* for a stack that looks behind a fragment header, or into a tunnel of its own */
};

struct complaint {
	struct mzn_ip from;
	__u8 type, code;
	__u16 quoted; /* bytes of the packet behind its IP header without options, or its fixed one; 0: nothing is said */
	__be32 rest; /* of the message's first words */
	__u32 verdict; /* then */
};

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

/* May its sender be told what is wrong with it? */
static __always_inline bool may_complain(struct __sk_buff *skb, const struct frame *frame)
{
	return frame->protocol != NO_PROTOCOL && !is_icmp_error(skb, frame);
}

/*
 * In whose name: the sender's gateway, which alone can tell of an expired packet. Of one that is too long also the
 * network's, or else the destination, in whose name the kernel's own tunnels answer on a bridge.
 */
static __always_inline const struct mzn_ip *speaker(const struct frame *frame, const struct mzn_sender *sender,
						    bool is_about_size)
{
	const struct mzn_network *network;

	/* Gateways are ordered by family, so an IPv6 one may stand first. */
	for (int i = 0; i < MZN_LIMIT_ADDRESSES; i++)
		if (sender->gateways[i].family == frame->source.family)
			return &sender->gateways[i];
	if (!is_about_size)
		return NULL;
	network = find_network(sender->vni, &frame->source);
	return network && network->gateway.family == frame->source.family ? &network->gateway : &frame->destination;
}

static __always_inline void compose_oversized(bool is_ipv4, struct complaint *about)
{
	about->type = is_ipv4 ? UNREACHABLE_IPV4 : TOO_BIG_IPV6;
	about->code = is_ipv4 ? FRAGMENTATION_NEEDED_IPV4 : 0;
	about->rest = bpf_htonl(config.mtu);
	about->quoted = QUOTED_OF_OVERSIZED;
}

/* With IP options the quotation would be longer; that is not worth a variable length. */
static __always_inline void compose_expired(const struct frame *frame, bool is_ipv4, struct complaint *about)
{
	const __u32 behind = is_ipv4 ? ETH_HLEN + sizeof(struct iphdr) : HEADERS;

	if ((is_ipv4 && frame->payload != behind) || behind + QUOTED_OF_EXPIRED > frame->end)
		return;
	about->type = is_ipv4 ? TIME_EXCEEDED_IPV4 : TIME_EXCEEDED_IPV6;
	about->quoted = QUOTED_OF_EXPIRED;
}

/* What its sender is told by that verdict. Nothing is said if it has no gateway to say it. */
__noinline int compose(struct frame *frame, struct mzn_sender *sender, __u32 verdict, struct complaint *about)
{
	const bool is_about_size = verdict == MZN_PASS_OVERSIZED_ANSWERED;
	const struct mzn_ip *from;

	if (!frame || !sender || !about)
		return 0;
	from = speaker(frame, sender, is_about_size);
	about->verdict = MZN_DROP_HOP_LIMIT;
	if (!from)
		return 0;
	about->from = *from;
	if (is_about_size)
		compose_oversized(from->family == 4, about);
	else
		compose_expired(frame, from->family == 4, about);
	if (about->quoted)
		about->verdict = verdict;
	return 0;
}

struct complaint_ipv4 {
	struct iphdr ip;
	struct icmp icmp;
	struct iphdr quoted;
	__u8 data[QUOTED_OF_OVERSIZED];
};

/* What is behind the quotation is not sent, and its zeros are nothing to a checksum. */
__noinline int complain_ipv4(struct __sk_buff *skb, struct frame *frame, struct complaint *about)
{
	struct complaint_ipv4 message = {};
	__u32 quoted, length;
	struct macs macs;

	if (!frame || !about)
		return MZN_DROP_UNREADABLE;
	quoted = about->quoted;
	if (!quoted)
		return about->verdict;
	if (quoted > sizeof(message.data) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &message.quoted, sizeof(message.quoted) + quoted))
		return MZN_DROP_UNREADABLE;
	length = offsetof(struct complaint_ipv4, data) + quoted;
	message.ip.version = 4;
	message.ip.ihl = sizeof(message.ip) / 4;
	message.ip.tot_len = bpf_htons(length);
	message.ip.ttl = COMPLAINT_HOPS;
	message.ip.protocol = IPPROTO_ICMP;
	message.ip.saddr = about->from.words[3];
	message.ip.daddr = frame->source.words[3];
	message.ip.check = fold(sum_of(&message.ip, sizeof(message.ip)));
	message.icmp.type = about->type;
	message.icmp.code = about->code;
	message.icmp.rest = about->rest;
	message.icmp.checksum = fold(sum_of(&message.icmp, sizeof(message) - sizeof(message.ip)));
	to_sender(&macs, frame);
	if (make_room(skb, frame, ETH_HLEN + length, sizeof(message.ip)) ||
	    bpf_skb_store_bytes(skb, 0, &macs, sizeof(macs), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &message, length, 0))
		return MZN_DROP_UNREADABLE;
	return about->verdict;
}

struct complaint_ipv6 {
	struct pseudo_header pseudo; /* not sent */
	struct icmp icmp;
	struct ipv6hdr quoted;
	__u8 data[QUOTED_OF_OVERSIZED];
};

__noinline int complain_ipv6(struct __sk_buff *skb, struct frame *frame, struct complaint *about)
{
	struct ipv6hdr ip = { .version = 6, .nexthdr = IPPROTO_ICMPV6, .hop_limit = COMPLAINT_HOPS };
	struct complaint_ipv6 message = {};
	__u32 quoted, length;
	struct macs macs;

	if (!frame || !about)
		return MZN_DROP_UNREADABLE;
	quoted = about->quoted;
	if (!quoted)
		return about->verdict;
	if (quoted > sizeof(message.data) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &message.quoted, sizeof(message.quoted) + quoted))
		return MZN_DROP_UNREADABLE;
	length = offsetof(struct complaint_ipv6, data) - sizeof(message.pseudo) + quoted;
	__builtin_memcpy(message.pseudo.source, about->from.words, 16);
	__builtin_memcpy(message.pseudo.destination, frame->source.words, 16);
	message.pseudo.length = bpf_htonl(length);
	message.pseudo.protocol = bpf_htonl(IPPROTO_ICMPV6);
	message.icmp.type = about->type;
	message.icmp.code = about->code;
	message.icmp.rest = about->rest;
	message.icmp.checksum = fold(sum_of(&message, sizeof(message)));
	ip.payload_len = bpf_htons(length);
	__builtin_memcpy(&ip.saddr, message.pseudo.source, 32);
	to_sender(&macs, frame);
	if (make_room(skb, frame, HEADERS + length, sizeof(ip)) ||
	    bpf_skb_store_bytes(skb, 0, &macs, sizeof(macs), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	    bpf_skb_store_bytes(skb, HEADERS, &message.icmp, length, 0))
		return MZN_DROP_UNREADABLE;
	return about->verdict;
}

/* The verdict that it was told by, or a reason to drop it. */
static __always_inline int complain(struct __sk_buff *skb, struct frame *frame, struct mzn_sender *sender,
				    int verdict)
{
	struct complaint about = {};

	compose(frame, sender, verdict, &about);
	return frame->source.family == 4 ? complain_ipv4(skb, frame, &about) : complain_ipv6(skb, frame, &about);
}

#endif
