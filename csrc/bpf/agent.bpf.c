// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The transit agent: every frame of every endpoint, on the egress of the tunnel.
 *
 *   parse -> sender -> size -> offloads -> source address -> ARP/ND -> destination -> local redirect or tunnel key
 *
 * Nothing leaves without a tunnel key set here, and the default is to drop. A packet is judged first, and nothing of it
 * changed; then what was decided is carried out; conclude() ends the program.
 */
#include "lib/arp.h"
#include "lib/gateway.h"
#include "lib/hop.h"
#include "lib/kernel.h"
#include "lib/lookup.h"
#include "lib/nd.h"
#include "lib/origin.h"
#include "lib/outer.h"
#include "lib/oversized.h"
#include "lib/verdict.h"

static __always_inline int unknown_sender(const struct frame *frame)
{
	return same_mac(&frame->source_mac, &config.tunnel_mac) ? MZN_DROP_TUNNEL_OWN : MZN_DROP_UNKNOWN_SENDER;
}

/* Whose is it? Not before that is proved may anything be written into the sender's counters. */
static __always_inline int find_sender(struct __sk_buff *skb, struct packet *packet)
{
	struct mzn_sender *sender = bpf_map_lookup_elem(&senders, &packet->frame.source_mac);
	int refused;

	if (!sender)
		return unknown_sender(&packet->frame);
	refused = identify(skb, &packet->frame, sender);
	if (refused)
		return refused;
	packet->sender = sender;
	packet->vni = sender->vni;
	return 0;
}

/*
 * A checksum that is left to a device is written after everything was checked. Its place is the sender's word, and
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

/* What a further address is to a packet that comes from it: off the fast path, so a function of its own. */
__noinline int judge_further(struct frame *frame, struct mzn_sender *sender)
{
	int bits;

	if (!frame || !sender)
		return FURTHER_NOT;
	bits = further_prefix(sender, &frame->source_mac, &frame->source);
	if (bits == NOT_FURTHER)
		return FURTHER_NOT;
	return on_link(&frame->source, bits, &frame->destination) ? FURTHER_ON_LINK : FURTHER_OWN;
}

static __always_inline bool has_own_source(struct packet *packet)
{
	packet->further = FURTHER_NOT;
	if (owns_first(packet->sender, &packet->frame.source))
		return true;
	if (packet->sender->flags & MZN_FLAG_MORE_ADDRESSES)
		packet->further = judge_further(&packet->frame, packet->sender);
	return packet->further != FURTHER_NOT;
}

static __always_inline bool may_leave_link(struct packet *packet)
{
	return has_own_source(packet) || packet->sender->flags & MZN_FLAG_FORWARDING;
}

/* On the link a stack also speaks from its link-local address, and from none while it makes sure of its own. */
static __always_inline bool may_speak_on_link(const struct frame *frame)
{
	return is_link_local_of(&frame->source_mac, &frame->source) ||
	       (is_unspecified(&frame->source) && is_multicast(frame));
}

/* To an endpoint, the destination or its next hop. Nothing else would end the loop of a packet to its own sender. */
static __always_inline int go_to(struct packet *packet, const struct mzn_endpoint *to)
{
	packet->to = to;
	switch (to->place) {
	case MZN_PLACE_LOCAL:
		return to->slot == packet->sender->slot ? MZN_DROP_HAIRPIN : MZN_PASS_DELIVERED_LOCALLY;
	case MZN_PLACE_REMOTE:
		packet->host = to->host;
		return MZN_PASS_ENCAPSULATED;
	default:
		return MZN_DROP_NO_DESTINATION; /* a newer version's: what else it holds means something else */
	}
}

/* Not routed here, and no hop less: the next hop does that. */
static __always_inline int go_by(struct packet *packet, const struct mzn_network *network)
{
	const struct mzn_endpoint *hop = find_via(packet->vni, network);

	packet->hop_limit = packet->frame.hop_limit;
	return hop ? go_to(packet, hop) : MZN_DROP_NO_NEXT_HOP;
}

/* No entry of its own: the gateway itself, the network's next hop, or a transit switch. */
static __always_inline int find_network_way(struct __sk_buff *skb, struct packet *packet)
{
	const struct mzn_ip *destination = &packet->frame.destination;
	const struct mzn_network *network = find_network(packet->vni, destination);
	bool to_gateway = is_gateway(packet->sender, network, destination);

	if (network && has_next_hop(network) && !to_gateway)
		return go_by(packet, network);
	count_hops(packet);
	if (has_expired(packet))
		return judge_expired(skb, &packet->frame);
	if (to_gateway)
		return MZN_PASS_GATEWAY_ANSWERED;
	if (!network)
		return MZN_DROP_NO_DESTINATION;
	packet->host = choose_switch(network, bpf_get_hash_recalc(skb));
	return packet->host ? MZN_PASS_ENCAPSULATED : MZN_DROP_NO_SWITCH;
}

static __always_inline int find_destination(struct __sk_buff *skb, struct packet *packet)
{
	const struct mzn_endpoint *to = find_endpoint(packet->vni, &packet->frame.destination);

	if (!to)
		return find_network_way(skb, packet);
	count_hops(packet);
	return has_expired(packet) ? judge_expired(skb, &packet->frame) : go_to(packet, to);
}

static __always_inline int decide(struct __sk_buff *skb, struct packet *packet)
{
	const struct frame *frame = &packet->frame;
	bool leaves_link;

	if (frame->ethertype == ETHERTYPE_ARP)
		return MZN_PASS_NEIGHBOUR_ANSWERED;
	leaves_link = may_leave_link(packet);
	if (!leaves_link && !may_speak_on_link(frame))
		return MZN_DROP_FOREIGN_SOURCE;
	if (is_nd(skb, frame))
		return MZN_PASS_NEIGHBOUR_ANSWERED;
	if (is_multicast(frame))
		return MZN_DROP_MULTICAST;
	return leaves_link ? find_destination(skb, packet) : MZN_DROP_FOREIGN_SOURCE;
}

static __always_inline int judge_sent(struct __sk_buff *skb, struct packet *packet)
{
	int refused = understand(skb, packet);

	if (!refused)
		refused = find_sender(skb, packet);
	if (refused)
		return refused;
	if (is_oversized(skb))
		return judge_oversized(skb, &packet->frame, packet->sender) ? MZN_PASS_OVERSIZED_ANSWERED :
									      MZN_DROP_OVERSIZED;
	if (is_checksum_misplaced(skb, &packet->frame))
		return MZN_DROP_BAD_OFFLOAD;
	return decide(skb, packet);
}

/* Finishes the frame before the redirect: the guard only checks the mark. */
static __always_inline int deliver_locally(struct __sk_buff *skb, const struct packet *packet)
{
	const struct mzn_mac *mac = &packet->to->mac;

	if (!same_mac(&packet->frame.destination_mac, mac) &&
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), mac->bytes, ETH_ALEN, 0))
		return MZN_DROP_UNREADABLE;
	return MZN_PASS_DELIVERED_LOCALLY;
}

static __always_inline int encapsulate(struct __sk_buff *skb, const struct packet *packet)
{
	int refused = set_outer(skb, packet->vni, packet->host, OUTER_TTL);

	return refused ? refused : MZN_PASS_ENCAPSULATED;
}

static __always_inline int answer_neighbour(struct __sk_buff *skb, struct packet *packet)
{
	if (packet->frame.ethertype == ETHERTYPE_ARP)
		return answer_arp(skb, &packet->frame, packet->sender);
	return answer_nd(skb, &packet->frame, packet->sender);
}

/* What is written may be refused, and a question may turn out to be none: the verdict that counts comes from here. */
static __always_inline int carry_out_sent(struct __sk_buff *skb, struct packet *packet, int decided)
{
	int refused;

	if (decided >= MZN_LIMIT_FIRST_DROP)
		return decided;
	if (decided == MZN_PASS_NEIGHBOUR_ANSWERED)
		return answer_neighbour(skb, packet);
	if (decided == MZN_PASS_OVERSIZED_ANSWERED || (decided == MZN_PASS_GATEWAY_ANSWERED && has_expired(packet)))
		return complain(skb, &packet->frame, packet->sender, decided);
	refused = take_hop(skb, packet);
	if (refused)
		return refused;
	switch (decided) {
	case MZN_PASS_GATEWAY_ANSWERED:
		return answer_echo(skb, &packet->frame);
	case MZN_PASS_DELIVERED_LOCALLY:
		return deliver_locally(skb, packet);
	case MZN_PASS_ENCAPSULATED:
		return encapsulate(skb, packet);
	default:
		return MZN_DROP_NO_DESTINATION; /* a verdict that is added and forgotten here leaves by no way */
	}
}

SEC("tc")
int mzn_agent(struct __sk_buff *skb)
{
	struct packet packet;
	int verdict = MZN_PASS_BOUNCE_ADMITTED;

	begin(&packet, skb->len);
	if (!is_bounced(skb))
		verdict = carry_out_sent(skb, &packet, judge_sent(skb, &packet));
	return conclude(skb, MZN_PROGRAM_AGENT, &packet, verdict);
}
