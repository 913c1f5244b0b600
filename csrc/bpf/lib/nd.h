/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* IPv6 neighbour discovery, answered as ARP is. */
#ifndef MZN_ND_H
#define MZN_ND_H

#include "answer.h"
#include "checksum.h"
#include "icmp.h"
#include "lookup.h"

enum {
	ND_HOPS = 255, /* a router would have lowered it */
	ND_SOURCE_MAC = 1,
	ND_TARGET_MAC = 2,
};

struct nd_option {
	__u8 type;
	__u8 length; /* in units of eight bytes */
	__u8 mac[ETH_ALEN];
} __attribute__((aligned(2)));

struct nd_message {
	__u8 type, code;
	__sum16 checksum;
	__be32 flags;
	__u32 target[4];
};

struct nd_answer {
	struct pseudo_header pseudo; /* not sent */
	struct nd_message message;
	struct nd_option option;
};

/*
 * Messages that only hosts and routers on one link exchange; never a tenant's to send on. Solicitations of routers,
 * which are not here, count as the multicast that they are.
 */
static __always_inline bool is_nd(struct __sk_buff *skb, const struct frame *frame)
{
	__u8 type;

	if (frame->ethertype != ETHERTYPE_IPV6 || frame->protocol != IPPROTO_ICMPV6)
		return false;
	/* A type that cannot be read may be anything. */
	if (frame->payload >= frame->end || pull(skb, frame->payload + sizeof(type)) ||
	    bpf_skb_load_bytes(skb, frame->payload, &type, sizeof(type)))
		return true;
	return type > ND_ROUTER_SOLICITATION && type <= ND_LAST;
}

static __always_inline int check_nd(struct __sk_buff *skb, struct frame *frame, struct mzn_sender *sender,
				    const struct nd_message *message, struct mzn_ip *target)
{
	bool own = owns(sender, &frame->source_mac, target) || is_link_local_of(&frame->source_mac, target);
	struct nd_option option;

	if (frame->hop_limit != ND_HOPS || message->code || frame->fragment || frame->payload != HEADERS)
		return MZN_DROP_BAD_ND;
	if (message->type == ND_ADVERTISEMENT)
		return own ? MZN_DROP_OWN_ADDRESS_ASKED : MZN_DROP_ND_SPOOFED;
	if (message->type != ND_SOLICITATION)
		return MZN_DROP_ND_SPOOFED;
	if (own)
		return MZN_DROP_OWN_ADDRESS_ASKED; /* duplicate address detection: an answer would read as "taken" */
	if (is_unspecified(&frame->source))
		return MZN_DROP_ND_SPOOFED;
	if (frame->payload + sizeof(*message) + sizeof(option) > frame->end)
		return 0; /* no option */
	if (bpf_skb_load_bytes(skb, HEADERS + sizeof(*message), &option, sizeof(option)))
		return MZN_DROP_UNREADABLE;
	if (option.type == ND_SOURCE_MAC && !same_mac(option.mac, &frame->source_mac))
		return MZN_DROP_ND_SPOOFED;
	return 0;
}

static __always_inline int write_advertisement(struct __sk_buff *skb, const struct frame *frame,
					       struct nd_answer *answer)
{
	const __u32 length = sizeof(*answer) - sizeof(answer->pseudo);
	struct ipv6hdr ip = { .version = 6, .nexthdr = IPPROTO_ICMPV6, .hop_limit = ND_HOPS };
	struct ethernet eth = { .protocol = ETHERTYPE_IPV6 };

	answer->pseudo.length = bpf_htonl(length);
	answer->pseudo.protocol = bpf_htonl(IPPROTO_ICMPV6);
	answer->message.checksum = fold(sum_of(answer, sizeof(*answer)));
	ip.payload_len = bpf_htons(length);
	__builtin_memcpy(&ip.saddr, answer->pseudo.source, sizeof(ip.saddr) + sizeof(ip.daddr));
	set_mac(eth.destination, &frame->source_mac);
	set_mac(eth.source, answer->option.mac);
	/* A question without its optional MAC is shorter than the answer. */
	if (make_room(skb, frame, HEADERS + length, sizeof(ip)) ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	    bpf_skb_store_bytes(skb, HEADERS, &answer->message, length, 0))
		return MZN_DROP_UNREADABLE;
	return MZN_PASS_NEIGHBOUR_ANSWERED;
}

/* As for ARP: the answer goes to the asker alone, at both layers. */
__noinline int answer_nd(struct __sk_buff *skb, struct frame *frame, struct mzn_sender *sender)
{
	struct nd_answer answer = { .option = { .type = ND_TARGET_MAC, .length = 1 } };
	struct mzn_ip target = { .family = 6 };
	int refused;

	if (!frame || !sender)
		return MZN_DROP_UNREADABLE;
	if (frame->payload + sizeof(answer.message) > frame->end ||
	    bpf_skb_load_bytes(skb, frame->payload, &answer.message, sizeof(answer.message)))
		return MZN_DROP_BAD_ND;
	__builtin_memcpy(target.words, answer.message.target, sizeof(target.words));
	refused = check_nd(skb, frame, sender, &answer.message, &target);
	if (refused)
		return refused;
	if (!find_neighbour(sender, &target, answer.option.mac))
		return MZN_DROP_NEIGHBOUR_UNKNOWN;
	answer.message.type = ND_ADVERTISEMENT;
	answer.message.checksum = 0;
	answer.message.flags = bpf_htonl(0x60000000); /* solicited, override */
	__builtin_memcpy(answer.pseudo.source, target.words, sizeof(target.words));
	__builtin_memcpy(answer.pseudo.destination, frame->source.words, sizeof(target.words));
	return write_advertisement(skb, frame, &answer);
}

#endif
