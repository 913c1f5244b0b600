/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where does an address live? One look-up for all programs: endpoints first, then networks by longest prefix. */
#ifndef MZN_LOOKUP_H
#define MZN_LOOKUP_H

#include "outer.h"

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

enum { NOT_FURTHER = -1 };

/*
 * Length of the on-link prefix of a further address, whose entry is a local one of the sender's device. Only a sender
 * with more than one address of a family pays for the look-up, which is off the fast path: a function of its own.
 */
__noinline int further_prefix(struct mzn_sender *sender, struct mzn_mac *mac, struct mzn_ip *ip)
{
	const struct mzn_endpoint *own;

	if (!sender || !mac || !ip || !(sender->flags & MZN_FLAG_MORE_ADDRESSES))
		return NOT_FURTHER;
	own = find_endpoint(sender->vni, ip);
	if (!own || own->place != MZN_PLACE_LOCAL || own->slot != sender->slot || !same_mac(&own->mac, mac))
		return NOT_FURTHER;
	return own->prefix_length;
}

/* Is it one of the addresses of the sender with that MAC? */
static __always_inline bool owns(struct mzn_sender *sender, struct mzn_mac *mac, struct mzn_ip *ip)
{
	return owns_first(sender, ip) || further_prefix(sender, mac, ip) != NOT_FURTHER;
}

static __always_inline struct mzn_network *find_network(__u32 vni, const struct mzn_ip *ip)
{
	struct mzn_network_key key = { .prefix_length = NETWORK_KEY_BITS, .vni = vni, .ip = *ip };

	return bpf_map_lookup_elem(&networks, &key);
}

/* Only an endpoint that forwards is given what is for others. That of another host is judged there. */
static __always_inline bool may_forward(const struct mzn_endpoint *endpoint)
{
	return endpoint->place == MZN_PLACE_REMOTE ||
	       (endpoint->place == MZN_PLACE_LOCAL && endpoint->flags & MZN_FLAG_FORWARDING);
}

static __always_inline bool has_next_hop(const struct mzn_network *network)
{
	return network->via.family;
}

/* The entry of a network's next hop; NULL if packets cannot go there. */
static __always_inline const struct mzn_endpoint *find_via(__u32 vni, const struct mzn_network *network)
{
	const struct mzn_endpoint *hop = find_endpoint(vni, &network->via);

	return hop && may_forward(hop) ? hop : NULL;
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

/* Answers for everything that is not on this host. */
static __always_inline void set_virtual_mac(void *mac)
{
	set_mac(mac, &config.virtual_mac);
}

/* The MAC that stands for an address, in the sender's VNI. False if nobody has it. */
static __always_inline bool find_neighbour(const struct mzn_sender *sender, const struct mzn_ip *ip, void *mac)
{
	struct mzn_endpoint *endpoint = find_endpoint(sender->vni, ip);

	if (endpoint && endpoint->place == MZN_PLACE_LOCAL) {
		set_mac(mac, &endpoint->mac);
		return true;
	}
	set_virtual_mac(mac);
	if (endpoint)
		return endpoint->place == MZN_PLACE_REMOTE;
	if (find_network(sender->vni, ip))
		return true;
	for (int i = 0; i < MZN_LIMIT_ADDRESSES; i++)
		if (same_ip(&sender->gateways[i], ip))
			return true;
	return false;
}

#endif
