/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ARP. Nothing is asked on the wire: the agent knows every neighbour and answers itself, to the asker alone. An
 * answer names a local endpoint's own MAC and the virtual MAC for everything else, so MACs are never distributed and
 * an endpoint that moves to another host leaves no wrong entry behind.
 */
#ifndef MZN_ARP_H
#define MZN_ARP_H

#include "lookup.h"
#include "parse.h"

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
} __attribute__((packed, aligned(2)));

static __always_inline int check_arp(const struct arp *arp, struct frame *frame, struct mzn_sender *sender,
				     struct mzn_ip *target)
{
	struct mzn_ip from;

	if (arp->hardware != bpf_htons(ARP_ETHERNET) || arp->protocol != ETHERTYPE_IPV4 ||
	    arp->hardware_length != ETH_ALEN || arp->protocol_length != sizeof(arp->sender_ip) ||
	    arp->operation != bpf_htons(ARP_REQUEST))
		return MZN_DROP_BAD_ARP;
	if (!same_mac(arp->sender_mac, &frame->source_mac))
		return MZN_DROP_ARP_SPOOFED;
	set_ipv4(&from, arp->sender_ip);
	/* Probe (sender 0.0.0.0) or announcement: an answer would read as "taken". */
	if (owns(sender, &frame->source_mac, target) &&
	    (!arp->sender_ip || owns(sender, &frame->source_mac, &from)))
		return MZN_DROP_OWN_ADDRESS_ASKED;
	/* A router asks from whatever address of its own the packet has that waits. */
	if (sender->flags & MZN_FLAG_FORWARDING || owns(sender, &frame->source_mac, &from))
		return 0;
	return MZN_DROP_ARP_SPOOFED;
}

/* Turns a request into its answer; the caller sends it back. */
static __always_inline int answer_arp(struct __sk_buff *skb, struct frame *frame, struct mzn_sender *sender)
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
	set_mac(arp.target_mac, arp.sender_mac);
	arp.target_ip = arp.sender_ip;
	if (!find_neighbour(sender, &target, arp.sender_mac))
		return MZN_DROP_NEIGHBOUR_UNKNOWN;
	arp.sender_ip = target.words[3];
	arp.operation = bpf_htons(ARP_REPLY);
	set_mac(arp.eth.h_dest, arp.target_mac);
	set_mac(arp.eth.h_source, arp.sender_mac);
	/* Whoever asks without an origin may ask in another's name: nothing else of the question goes there. */
	if (bpf_skb_change_tail(skb, sizeof(arp), 0) || bpf_skb_store_bytes(skb, 0, &arp, sizeof(arp), 0))
		return MZN_DROP_UNREADABLE;
	return MZN_PASS_NEIGHBOUR_ANSWERED;
}

#endif
