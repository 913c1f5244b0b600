/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Neighbour resolution. Nothing is asked on the wire: the agent knows every neighbour and answers itself,
 * to the asker alone. An answer names a local endpoint's own MAC and the virtual MAC for everything else, so
 * MACs are never distributed and an endpoint that moves to another host leaves no wrong entry behind.
 */
#ifndef MZN_ARP_ND_H
#define MZN_ARP_ND_H

#include "checksum.h"
#include "identity.h"
#include "room.h"
#include "route.h"

/* <linux/if_arp.h> needs the C library's headers, which do not exist for this target. */
enum {
	ARP_ETHERNET = 1,
	ARP_REQUEST = 1,
	ARP_REPLY = 2,
};

struct arp {
	struct ethhdr eth;
	__be16 hardware, protocol;
	__u8 hardware_length, protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender_ip;
	__u8 target_mac[ETH_ALEN];
	__be32 target_ip;
} __attribute__((packed));

/* The MAC that stands for an address, in the sender's VNI. False if nobody has it. */
static __always_inline bool find_neighbour(const struct mzn_interface *sender, const struct mzn_ip *ip, __u8 *mac)
{
	struct mzn_endpoint *endpoint = find_endpoint(sender->vni, ip);

	if (endpoint && endpoint->place == MZN_PLACE_LOCAL) {
		__builtin_memcpy(mac, endpoint->mac.bytes, ETH_ALEN);
		return true;
	}
	for (int i = 0; i < ETH_ALEN; i++)
		mac[i] = config.virtual_mac.bytes[i];
	if (endpoint)
		return endpoint->place == MZN_PLACE_REMOTE;
	if (find_network(sender->vni, ip))
		return true;
	for (int i = 0; i < MZN_LIMIT_ADDRESSES; i++)
		if (same_ip(&sender->gateways[i], ip))
			return true;
	return false;
}

static __always_inline int check_arp(const struct arp *arp, const struct frame *frame,
				     const struct mzn_interface *sender, const struct mzn_ip *target)
{
	struct mzn_ip from;

	if (arp->hardware != bpf_htons(ARP_ETHERNET) || arp->protocol != ETHERTYPE_IPV4 ||
	    arp->hardware_length != ETH_ALEN || arp->protocol_length != sizeof(arp->sender_ip) ||
	    arp->operation != bpf_htons(ARP_REQUEST))
		return MZN_DROP_BAD_ARP;
	if (!same_mac(arp->sender_mac, frame->source_mac.bytes))
		return MZN_DROP_ARP_SPOOFED;
	set_ipv4(&from, arp->sender_ip);
	/* Probe (sender 0.0.0.0) or announcement: an answer would read as "taken". */
	if (owns(sender, target) && (!arp->sender_ip || owns(sender, &from)))
		return MZN_DROP_OWN_ADDRESS_ASKED;
	return owns(sender, &from) ? 0 : MZN_DROP_ARP_SPOOFED;
}

/* Turns a request into its answer; the caller sends it back. */
static __always_inline int answer_arp(struct __sk_buff *skb, const struct frame *frame,
				      const struct mzn_interface *sender)
{
	struct mzn_ip target;
	struct arp arp;
	int refused;

	if (bpf_skb_load_bytes(skb, 0, &arp, sizeof(arp)))
		return MZN_DROP_TRUNCATED;
	set_ipv4(&target, arp.target_ip);
	refused = check_arp(&arp, frame, sender, &target);
	if (refused)
		return refused;
	__builtin_memcpy(arp.target_mac, arp.sender_mac, ETH_ALEN);
	arp.target_ip = arp.sender_ip;
	if (!find_neighbour(sender, &target, arp.sender_mac))
		return MZN_DROP_NEIGHBOUR_UNKNOWN;
	arp.sender_ip = target.words[3];
	arp.operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp.eth.h_dest, arp.target_mac, ETH_ALEN);
	__builtin_memcpy(arp.eth.h_source, arp.sender_mac, ETH_ALEN);
	/* Whoever asks without an origin may ask in another's name: nothing else of the question goes there. */
	if (bpf_skb_change_tail(skb, sizeof(arp), 0) || bpf_skb_store_bytes(skb, 0, &arp, sizeof(arp), 0))
		return MZN_DROP_UNREADABLE;
	return MZN_PASS_NEIGHBOUR_ANSWERED;
}

enum {
	ND_ROUTER_SOLICITATION = 133,
	ND_SOLICITATION = 135,
	ND_ADVERTISEMENT = 136,
	ND_LAST = 137,
	ND_HOPS = 255, /* a router would have lowered it */
	ND_SOURCE_MAC = 1,
	ND_TARGET_MAC = 2,
};

struct nd_option {
	__u8 type;
	__u8 length; /* in units of eight bytes */
	__u8 mac[ETH_ALEN];
};

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

static __always_inline int check_nd(struct __sk_buff *skb, const struct frame *frame, struct mzn_interface *sender,
				    const struct nd_message *message, const struct mzn_ip *target)
{
	bool own = owns(sender, target) || is_link_local_of(&frame->source_mac, target);
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
	if (option.type == ND_SOURCE_MAC && !same_mac(option.mac, frame->source_mac.bytes))
		return MZN_DROP_ND_SPOOFED;
	return 0;
}

static __always_inline int write_advertisement(struct __sk_buff *skb, const struct frame *frame,
					       struct nd_answer *answer)
{
	const __u32 length = sizeof(*answer) - sizeof(answer->pseudo);
	struct ipv6hdr ip = { .version = 6, .nexthdr = IPPROTO_ICMPV6, .hop_limit = ND_HOPS };
	struct ethhdr eth = { .h_proto = ETHERTYPE_IPV6 };

	answer->pseudo.length = bpf_htonl(length);
	answer->pseudo.protocol = bpf_htonl(IPPROTO_ICMPV6);
	answer->message.checksum = fold(sum_of(answer, sizeof(*answer)));
	ip.payload_len = bpf_htons(length);
	__builtin_memcpy(&ip.saddr, answer->pseudo.source, sizeof(ip.saddr) + sizeof(ip.daddr));
	__builtin_memcpy(eth.h_dest, frame->source_mac.bytes, ETH_ALEN);
	__builtin_memcpy(eth.h_source, answer->option.mac, ETH_ALEN);
	/* A question without its optional MAC is shorter than the answer. */
	if (make_room(skb, frame, HEADERS + length, sizeof(ip)) ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	    bpf_skb_store_bytes(skb, HEADERS, &answer->message, length, 0))
		return MZN_DROP_UNREADABLE;
	return MZN_PASS_NEIGHBOUR_ANSWERED;
}

/* As for ARP: the answer goes to the asker alone, at both layers. */
__noinline int answer_nd(struct __sk_buff *skb, struct frame *frame, struct mzn_interface *sender)
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
