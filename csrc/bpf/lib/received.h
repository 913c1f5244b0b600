/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A frame that came out of the tunnel: may it be here, and where does it go? A MACVLAN picks frames by MAC alone; what
 * makes a tenant's network is checked here: the VNI, the peer and the address.
 */
#ifndef MZN_RECEIVED_H
#define MZN_RECEIVED_H

#include "answer.h"
#include "lookup.h"
#include "nd.h"
#include "outer.h"

static __always_inline int check_outer(struct __sk_buff *skb, const struct outer *outer)
{
	if (!is_own_host(outer->local.words))
		return MZN_DROP_FOREIGN_LOCAL;
	if (outer->flags & (OUTER_OAM | OUTER_CRITICAL))
		return MZN_DROP_GENEVE_OPTIONS;
	if (outer->flags & OUTER_OPTIONS && has_critical_option(skb))
		return MZN_DROP_GENEVE_OPTIONS;
	return is_peer(&outer->remote) ? 0 : MZN_DROP_FOREIGN_PEER;
}

/* Is there a next hop of the VNI at the host that the frame came from? Off the fast path, so a function of its own. */
__noinline int is_from_router(__u32 vni, struct mzn_ip *host)
{
	const struct mzn_endpoint *hop;
	struct mzn_router_key key;
	struct mzn_router *router;

	if (!host)
		return false;
	key.vni = vni;
	__builtin_memcpy(key.host, host->words, sizeof(key.host));
	router = bpf_map_lookup_elem(&routers, &key);
	if (!router)
		return false;
	for (__u32 i = 0; i < MZN_LIMIT_WITNESSES; i++) {
		hop = i < router->via_count ? find_endpoint(vni, &router->via[i]) : NULL;
		if (hop && hop->place == MZN_PLACE_REMOTE && same_words(hop->host, key.host))
			return true;
	}
	return false;
}

/*
 * A remote host must not speak for an endpoint of this one, but a router there may send back what it got from here, with
 * another destination. The MAC says nothing: no frame goes on with one of afar.
 */
static __always_inline bool is_local_source(const struct packet *packet, struct mzn_ip *host)
{
	const struct mzn_endpoint *from = find_endpoint(packet->vni, &packet->frame.source);

	return from && from->place == MZN_PLACE_LOCAL && !is_from_router(packet->vni, host);
}

static __always_inline int check_inner(struct __sk_buff *skb, const struct frame *frame)
{
	if (frame->ethertype == ETHERTYPE_ARP)
		return MZN_DROP_BAD_ARP; /* agents answer, they do not ask */
	if (is_nd(skb, frame))
		return MZN_DROP_BAD_ND;
	if (is_multicast(frame))
		return MZN_DROP_MULTICAST;
	return same_mac(&frame->destination_mac, &config.tunnel_mac) ? MZN_DROP_TUNNEL_MAC : 0;
}

/* A frame that was understood, from that host: zero, or why it may not be here. */
static __always_inline int check_received(struct __sk_buff *skb, const struct packet *packet, struct mzn_ip *host)
{
	int refused = check_inner(skb, &packet->frame);

	if (refused)
		return refused;
	return is_local_source(packet, host) ? MZN_DROP_SOURCE_IS_LOCAL : 0;
}

/* No entry of its own: the network's next hop, or a transit switch. */
static __always_inline int find_beyond(struct __sk_buff *skb, struct packet *packet)
{
	const struct mzn_network *network = find_network(packet->vni, &packet->frame.destination);

	if (!network)
		return MZN_DROP_NO_DESTINATION;
	if (has_next_hop(network)) {
		packet->to = find_via(packet->vni, network);
		return packet->to ? 0 : MZN_DROP_NO_NEXT_HOP;
	}
	packet->host = choose_switch(network, bpf_get_hash_recalc(skb));
	return packet->host ? 0 : MZN_DROP_NO_DESTINATION;
}

/*
 * Of two hosts that disagree neither sends a frame back. The outer TTL ends the journey between more of them, and must be
 * checked here: a key with TTL zero would mean 64 to VXLAN.
 */
static __always_inline int go_on(const struct packet *packet, const struct outer *outer)
{
	if (same_words(packet->host, outer->remote.words))
		return MZN_DROP_BOUNCED_BACK;
	return outer->ttl <= 1 ? MZN_DROP_OUTER_HOP_LIMIT : MZN_PASS_BOUNCED;
}

static __always_inline int find_way(struct __sk_buff *skb, struct packet *packet, const struct outer *outer)
{
	int refused = 0;

	if (!packet->to)
		refused = find_beyond(skb, packet);
	if (refused)
		return refused;
	if (packet->to && packet->to->place == MZN_PLACE_LOCAL)
		return MZN_PASS_ACCEPTED;
	if (packet->to && packet->to->place != MZN_PLACE_REMOTE)
		return MZN_DROP_NO_DESTINATION;
	if (packet->to)
		packet->host = packet->to->host;
	return go_on(packet, outer);
}

static __always_inline int judge_received(struct __sk_buff *skb, struct packet *packet, struct outer *outer)
{
	int refused = check_outer(skb, outer);

	packet->vni = outer->vni;
	if (!refused)
		refused = understand(skb, packet);
	if (refused)
		return refused;
	/* Also of what is refused below: it is counted for the endpoint that it was for. ARP has no such address. */
	packet->to = find_endpoint(packet->vni, &packet->frame.destination);
	refused = check_received(skb, packet, &outer->remote);
	return refused ? refused : find_way(skb, packet, outer);
}

/* The whole Ethernet header, so that the MACs which a sender on another host chose reach nobody. */
static __always_inline int deliver(struct __sk_buff *skb, const struct packet *packet)
{
	struct ethernet eth = { .protocol = packet->frame.ethertype };

	set_mac(eth.destination, packet->to->mac.bytes);
	set_virtual_mac(eth.source);
	/* No checksum flag: at ingress skb->csum does not cover the Ethernet header. */
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
		return MZN_DROP_UNREADABLE;
	return MZN_PASS_ACCEPTED;
}

static __always_inline int bounce(struct __sk_buff *skb, const struct packet *packet, const struct outer *outer)
{
	int refused = set_outer(skb, packet->vni, packet->host, bounced_ttl(outer->ttl));

	return refused ? refused : MZN_PASS_BOUNCED;
}

static __always_inline int carry_out_received(struct __sk_buff *skb, const struct packet *packet,
					      const struct outer *outer, int decided)
{
	/* By this the verifier knows that it is one of those below; before 6.8 inequality alone would not tell it. */
	if (decided >= MZN_LIMIT_FIRST_DROP)
		return decided;
	switch (decided) {
	case MZN_PASS_ACCEPTED:
		return deliver(skb, packet);
	case MZN_PASS_BOUNCED:
		return bounce(skb, packet, outer);
	default:
		return decided;
	}
}

#endif
