/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The transit agent: every frame of every endpoint, on the egress of the tunnel.
 *
 *   parse -> identity -> size -> offloads -> source address -> ARP/ND -> destination -> local redirect or tunnel key
 *
 * Nothing leaves without a tunnel key set here, and the default is to drop.
 */
#ifndef MZN_AGENT_H
#define MZN_AGENT_H

#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include "lib/arp_nd.h"
#include "lib/bounce.h"
#include "lib/count.h"
#include "lib/gateway.h"
#include "lib/identity.h"
#include "lib/route.h"
#include "lib/sk_buff.h"
#include "lib/tunnel.h"
#include "lib/verdict.h"

enum { GSO_BY_FRAGS = 0xffff };

/* Finishes the frame before the redirect: the guard only checks the mark. */
static __always_inline int deliver_locally(struct __sk_buff *skb, const struct frame *frame,
					   const struct mzn_interface *sender, const struct mzn_endpoint *to)
{
	if (to->interface == sender->interface)
		return MZN_DROP_HAIRPIN; /* nothing else would end this loop */
	if (!same_mac(frame->destination_mac, to->mac.bytes) &&
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), to->mac.bytes, ETH_ALEN, 0))
		return MZN_DROP_UNREADABLE;
	count_received(to->interface, skb->len);
	return MZN_PASS_DELIVERED_LOCALLY;
}

static __always_inline int encapsulate(struct __sk_buff *skb, __u32 vni, const __u32 *host)
{
	int refused = set_outer(skb, vni, host, OUTER_TTL);

	return refused ? refused : MZN_PASS_ENCAPSULATED;
}

/* No entry of its own: the gateway itself, or a transit switch of the network. */
static __always_inline int send_to_network(struct __sk_buff *skb, struct frame *frame,
					   const struct mzn_interface *sender)
{
	struct mzn_network *network = find_network(sender->vni, &frame->destination);
	const __u32 *host;

	if (is_gateway(sender, network, &frame->destination))
		return answer_echo(skb, frame);
	if (!network)
		return MZN_DROP_NO_DESTINATION;
	host = choose_switch(network, bpf_get_hash_recalc(skb));
	return host ? encapsulate(skb, sender->vni, host) : MZN_DROP_NO_SWITCH;
}

static __always_inline int send_on(struct __sk_buff *skb, struct frame *frame, struct mzn_interface *sender)
{
	struct mzn_endpoint *to = find_endpoint(sender->vni, &frame->destination);
	int refused;

	if (is_routed(sender, &frame->destination)) {
		if (frame->hop_limit <= 1)
			return expire(skb, frame, sender);
		refused = take_hop(skb, frame);
		if (refused)
			return refused;
	}
	if (!to)
		return send_to_network(skb, frame, sender);
	switch (to->place) {
	case MZN_PLACE_LOCAL:
		return deliver_locally(skb, frame, sender, to);
	case MZN_PLACE_REMOTE:
		return encapsulate(skb, sender->vni, to->host);
	default:
		return MZN_DROP_NO_DESTINATION; /* a newer version's: what else it holds means something else */
	}
}

/* On the link a stack also speaks from its link-local address, and from none while it makes sure of its own. */
static __always_inline bool may_speak_on_link(const struct frame *frame, const struct mzn_interface *sender)
{
	return sender->flags & MZN_FLAG_FORWARDING || owns(sender, &frame->source) ||
	       is_link_local_of(&frame->source_mac, &frame->source) ||
	       (is_unspecified(&frame->source) && is_multicast(frame));
}

static __always_inline int decide(struct __sk_buff *skb, struct frame *frame, struct mzn_interface *sender)
{
	if (frame->ethertype == ETHERTYPE_ARP)
		return answer_arp(skb, frame, sender);
	if (!may_speak_on_link(frame, sender))
		return MZN_DROP_FOREIGN_SOURCE;
	if (is_nd(skb, frame))
		return answer_nd(skb, frame, sender);
	if (is_multicast(frame))
		return MZN_DROP_MULTICAST;
	if (!(sender->flags & MZN_FLAG_FORWARDING) && !owns(sender, &frame->source))
		return MZN_DROP_FOREIGN_SOURCE;
	return send_on(skb, frame, sender);
}

/*
 * A VM can write what a device would refuse; outer fragments would hide that its MTU is wrong. Of a frame that is
 * segmented later, each segment has at least an IPv4 and a UDP header around its data.
 */
static __always_inline bool is_oversized(struct __sk_buff *skb)
{
	if (skb->gso_size == GSO_BY_FRAGS)
		return false; /* SCTP's segments are as its sender made them, and nobody else can ask for that */
	if (skb->gso_size)
		return skb->gso_size + sizeof(struct iphdr) + sizeof(struct udphdr) > config.mtu;
	return skb->len > config.mtu + ETH_HLEN;
}

/*
 * A checksum that is left to the device is written after everything was checked. Its place is the sender's word, and
 * its value the sender's choice: it may stand nowhere but behind the headers that were looked at, and the first bytes
 * of an upper layer are never a checksum, but may be ICMPv6's type.
 */
static __always_inline bool is_checksum_misplaced(struct __sk_buff *skb, const struct frame *frame)
{
	struct deferred_checksum checksum = {};

	if (!read_checksum(skb, &checksum))
		return false;
	return frame->ethertype == ETHERTYPE_ARP || checksum.start < frame->payload ||
	       checksum.place < frame->payload + sizeof(__sum16) || checksum.place + sizeof(__sum16) > skb->len;
}

static __always_inline int unknown_sender(const struct frame *frame)
{
	if (same_mac(frame->source_mac.bytes, config.tunnel_mac.bytes))
		return MZN_DROP_TUNNEL_OWN;
	return MZN_DROP_UNKNOWN_SENDER;
}

/*
 * The tenant's mark, priority and departure time end here: on the outer packet they would steer the host's
 * routing rules and qdiscs.
 */
static __always_inline int let_out(struct __sk_buff *skb, int verdict)
{
	enum fate fate = agent_fate(verdict);

	if (fate == FATE_DROP)
		return TC_ACT_SHOT;
	if (verdict == MZN_PASS_BOUNCE_ADMITTED) {
		forget_signature(skb);
		return TC_ACT_OK;
	}
	skb->mark = 0;
	skb->priority = 0;
	skb->tstamp = 0;
	if (fate == FATE_GO_ON)
		return TC_ACT_OK;
	skb->mark = config.mark_local;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

static __always_inline int admit(struct __sk_buff *skb)
{
	struct frame frame = {};
	struct mzn_interface *sender;
	__u32 bytes = skb->len;
	int verdict = parse(skb, &frame);

	if (verdict)
		return verdict;
	sender = bpf_map_lookup_elem(&interfaces, &frame.source_mac);
	if (!sender)
		return unknown_sender(&frame);
	verdict = identify(skb, &frame, sender);
	if (verdict)
		return verdict; /* somebody else's, who must not write into the sender's counters */
	if (is_oversized(skb))
		verdict = MZN_DROP_OVERSIZED;
	else if (is_checksum_misplaced(skb, &frame))
		verdict = MZN_DROP_BAD_OFFLOAD;
	else
		verdict = decide(skb, &frame, sender);
	count_sent(sender->interface, verdict, bytes);
	return verdict;
}

SEC("tc")
int mzn_agent(struct __sk_buff *skb)
{
	__u32 bytes = skb->len;
	int verdict = is_bounced(skb) ? MZN_PASS_BOUNCE_ADMITTED : admit(skb);

	count_verdict(MZN_PROGRAM_AGENT, verdict, bytes);
	return let_out(skb, verdict);
}

#endif
