/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Neighbour resolution. Nothing is asked on the wire: the agent knows every neighbour and answers itself,
 * to the asker alone. An answer names a local endpoint's own MAC and the virtual MAC for everything else, so
 * MACs are never distributed and an endpoint that moves to another host leaves no wrong entry behind.
 */
#ifndef MZN_ARP_ND_H
#define MZN_ARP_ND_H

#include "identity.h"
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

	if (endpoint && endpoint->place == MZN_LOCAL) {
		__builtin_memcpy(mac, endpoint->mac.bytes, ETH_ALEN);
		return true;
	}
	for (int i = 0; i < ETH_ALEN; i++)
		mac[i] = config.virtual_mac.bytes[i];
	if (endpoint || find_network(sender->vni, ip))
		return true;
	for (int i = 0; i < MZN_ADDRESSES; i++)
		if (same_ip(&sender->gateways[i], ip))
			return true;
	return false;
}

static __always_inline int check_arp(const struct arp *arp, const struct frame *frame,
				     const struct mzn_interface *sender, const struct mzn_ip *target)
{
	struct mzn_ip from;

	if (arp->hardware != bpf_htons(ARP_ETHERNET) || arp->protocol != MZN_IPV4 ||
	    arp->hardware_length != ETH_ALEN || arp->protocol_length != sizeof(arp->sender_ip) ||
	    arp->operation != bpf_htons(ARP_REQUEST))
		return MZN_BAD_ARP;
	if (!same_mac(arp->sender_mac, frame->source_mac.bytes))
		return MZN_ARP_SPOOFED;
	set_ipv4(&from, arp->sender_ip);
	/* Probe (sender 0.0.0.0) or announcement: an answer would read as "taken". */
	if (owns(sender, target) && (!arp->sender_ip || owns(sender, &from)))
		return MZN_OWN_ADDRESS_ASKED;
	return owns(sender, &from) ? 0 : MZN_ARP_SPOOFED;
}

/* Turns a request into its answer; the caller sends it back. */
static __always_inline int answer_arp(struct __sk_buff *skb, const struct frame *frame,
				      const struct mzn_interface *sender)
{
	struct mzn_ip target;
	struct arp arp;
	int refused;

	if (bpf_skb_load_bytes(skb, 0, &arp, sizeof(arp)))
		return MZN_TRUNCATED;
	set_ipv4(&target, arp.target_ip);
	refused = check_arp(&arp, frame, sender, &target);
	if (refused)
		return refused;
	__builtin_memcpy(arp.target_mac, arp.sender_mac, ETH_ALEN);
	arp.target_ip = arp.sender_ip;
	if (!find_neighbour(sender, &target, arp.sender_mac))
		return MZN_NEIGHBOUR_UNKNOWN;
	arp.sender_ip = target.words[3];
	arp.operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp.eth.h_dest, arp.target_mac, ETH_ALEN);
	__builtin_memcpy(arp.eth.h_source, arp.sender_mac, ETH_ALEN);
	return bpf_skb_store_bytes(skb, 0, &arp, sizeof(arp), 0) ? MZN_UNREADABLE : MZN_NEIGHBOUR_ANSWERED;
}

#endif
