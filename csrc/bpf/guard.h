/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The guard: every frame on the ingress of the tunnel. A MACVLAN picks frames by MAC alone; what makes a
 * tenant's network is checked here: the VNI, the peer, the address, and the agent's mark on local frames.
 */
#ifndef MZN_GUARD_H
#define MZN_GUARD_H

#include <linux/pkt_cls.h>

#include "lib/arp_nd.h"
#include "lib/bounce.h"
#include "lib/count.h"
#include "lib/metadata.h"
#include "lib/route.h"
#include "lib/tunnel.h"
#include "lib/verdict.h"

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

/*
 * A remote host must not speak for an endpoint of this one, by MAC or by address. The same MAC may exist in another
 * VNI elsewhere.
 */
static __always_inline bool is_local_sender(const struct frame *frame, __u32 vni)
{
	struct mzn_interface *known = bpf_map_lookup_elem(&interfaces, &frame->source_mac);
	struct mzn_endpoint *from = find_endpoint(vni, &frame->source);

	return (known && known->vni == vni) || (from && from->place == MZN_PLACE_LOCAL);
}

static __always_inline int deliver(struct __sk_buff *skb, const struct mzn_endpoint *to)
{
	/* No checksum flag: at ingress skb->csum does not cover the Ethernet header. */
	if (bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), to->mac.bytes, ETH_ALEN, 0))
		return MZN_DROP_UNREADABLE;
	count_received(to->interface, skb->len);
	return MZN_PASS_ACCEPTED;
}

/* Not here: the host or transit switch that the table names. NULL if there is none. */
static __always_inline const __u32 *next_stop(struct __sk_buff *skb, const struct frame *frame, __u32 vni,
					      const struct mzn_endpoint *to)
{
	const struct mzn_network *network;

	if (to)
		return to->place == MZN_PLACE_REMOTE ? to->host : NULL;
	network = find_network(vni, &frame->destination);
	return network ? choose_switch(network, bpf_get_hash_recalc(skb)) : NULL;
}

/*
 * The outer TTL ends the journey of a frame between hosts that disagree, and must be checked here: a key with TTL zero
 * would mean 64 to VXLAN.
 */
static __always_inline int bounce(struct __sk_buff *skb, const struct outer *outer, const __u32 *host)
{
	int refused;

	if (!host)
		return MZN_DROP_NO_DESTINATION;
	if (outer->ttl <= 1)
		return MZN_DROP_OUTER_HOP_LIMIT;
	refused = set_outer(skb, outer->vni, host, outer->ttl - 1);
	return refused ? refused : MZN_PASS_BOUNCED;
}

static __always_inline int check_inner(struct __sk_buff *skb, const struct frame *frame)
{
	if (frame->ethertype == ETHERTYPE_ARP)
		return MZN_DROP_BAD_ARP; /* agents answer, they do not ask */
	if (is_nd(skb, frame))
		return MZN_DROP_BAD_ND;
	if (is_multicast(frame))
		return MZN_DROP_MULTICAST;
	return same_mac(frame->destination_mac, config.tunnel_mac.bytes) ? MZN_DROP_TUNNEL_MAC : 0;
}

static __always_inline int accept(struct __sk_buff *skb, const struct outer *outer)
{
	struct frame frame = {};
	struct mzn_endpoint *to;
	int refused = check_outer(skb, outer);

	if (!refused)
		refused = parse(skb, &frame);
	if (!refused)
		refused = check_inner(skb, &frame);
	if (refused)
		return refused;
	if (is_local_sender(&frame, outer->vni))
		return MZN_DROP_SOURCE_IS_LOCAL;
	to = find_endpoint(outer->vni, &frame.destination);
	if (to && to->place == MZN_PLACE_LOCAL)
		return deliver(skb, to);
	return bounce(skb, outer, next_stop(skb, &frame, outer->vni, to));
}

/*
 * Of a socket of the kernel's own, for ICMP and resets? There is one for each CPU, and all namespaces share it. A local
 * frame still takes room of it, and a tap may keep that for as long as nobody reads: then nobody's echo is answered.
 */
static __always_inline bool is_of_shared_socket(struct __sk_buff *skb)
{
	struct bpf_sock *socket = skb->sk;

	if (!socket)
		return false;
	socket = bpf_sk_fullsock(socket);
	return socket && socket->type == RAW_SOCKET &&
	       (socket->family == FAMILY_IPV4 || socket->family == FAMILY_IPV6);
}

/* A copy comes by again, without the socket. */
static __always_inline int accept_locally(struct __sk_buff *skb)
{
	if (skb->mark != config.mark_local)
		return MZN_DROP_NO_TUNNEL_KEY;
	if (is_of_shared_socket(skb) && bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS) >= 0)
		return MZN_PASS_COPIED;
	return MZN_PASS_ACCEPTED_LOCALLY;
}

static __always_inline int let_in(struct __sk_buff *skb, int verdict)
{
	switch (guard_fate(verdict)) {
	case FATE_GO_ON:
		skb->mark = 0;
		return TC_ACT_OK;
	case FATE_TURN:
		sign_bounced(skb);
		return bpf_redirect(skb->ifindex, 0);
	default:
		return TC_ACT_SHOT;
	}
}

SEC("tc")
int mzn_guard(struct __sk_buff *skb)
{
	struct outer outer = {};
	__u32 bytes = skb->len;
	int verdict;

	verdict = get_outer(skb, &outer) ? accept(skb, &outer) : accept_locally(skb);
	count_verdict(MZN_PROGRAM_GUARD, verdict, bytes);
	return let_in(skb, verdict);
}

#endif
