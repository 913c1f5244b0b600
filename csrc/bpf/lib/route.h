/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where does this address live? One look-up for all programs: endpoints first, then networks by longest prefix. */
#ifndef MZN_ROUTE_H
#define MZN_ROUTE_H

#include "tunnel.h"

enum {
	/* Bits of a networks key before the address: VNI and family, always compared whole. */
	NETWORK_KEY_FIXED =
		8 * (sizeof(struct mzn_network_key) - sizeof(__u32) - sizeof(((struct mzn_ip *)0)->words)),
	NETWORK_KEY_BITS = NETWORK_KEY_FIXED + 128,
};

static __always_inline struct mzn_endpoint *find_endpoint(__u32 vni, const struct mzn_ip *ip)
{
	struct mzn_endpoint_key key = { .vni = vni, .ip = *ip };

	return bpf_map_lookup_elem(&endpoints, &key);
}

static __always_inline struct mzn_network *find_network(__u32 vni, const struct mzn_ip *ip)
{
	struct mzn_network_key key = { .prefix_length = NETWORK_KEY_BITS, .vni = vni, .ip = *ip };

	return bpf_map_lookup_elem(&networks, &key);
}

/*
 * The transit switch of a network for a flow: stable while the set of switches is. None if this host is one of
 * them: all of them know every endpoint of the network, so what this one does not know does not exist, and sending
 * it on to another would make the two play ball.
 */
static __always_inline const __u32 *choose_switch(const struct mzn_network *network, __u32 hash)
{
	__u32 count = network->switch_count;
	__u32 chosen;

	if (!count || count > MZN_LIMIT_SWITCHES)
		return NULL;
	for (__u32 i = 0; i < MZN_LIMIT_SWITCHES; i++)
		if (i < count && is_own_host(network->switches[i]))
			return NULL;
	chosen = hash % count;
	/* The verifier cannot see that a remainder is small, and clang would drop the check. */
	barrier_var(chosen);
	if (chosen >= MZN_LIMIT_SWITCHES)
		return NULL;
	return network->switches[chosen];
}

/* Are both addresses in the prefix? Only then is a packet between them not routed. */
static __always_inline bool on_link(const struct mzn_own_address *own, const struct mzn_ip *ip)
{
	__u32 bits = own->prefix_length + (ip->family == 4 ? 96 : 0);

	if (own->ip.family != ip->family)
		return false;
	for (int i = 0; i < 4; i++) {
		__u32 differ = bpf_ntohl(own->ip.words[i] ^ ip->words[i]);

		if (bits < 32)
			return !bits || !(differ >> (32 - bits));
		if (differ)
			return false;
		bits -= 32;
	}
	return true;
}

static __always_inline bool is_routed(const struct mzn_interface *sender, const struct mzn_ip *destination)
{
	for (int i = 0; i < MZN_LIMIT_ADDRESSES; i++)
		if (on_link(&sender->addresses[i], destination))
			return false;
	return true;
}

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

/* A packet that leaves its network passes one router: the agent. It has hops left. */
static __always_inline int take_hop(struct __sk_buff *skb, const struct frame *frame)
{
	return frame->destination.family == 4 ? decrement_ipv4(skb, frame) : decrement_ipv6(skb, frame);
}

#endif
