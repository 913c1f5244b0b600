/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Events: what became of a frame, told to those who asked for frames of that kind. Nothing here changes a verdict or a
 * frame, and what is told is told to nobody else. A reader's filter comes first, then its budget, then room in its ring.
 * Whoever dies stops reading when its lease ends.
 */
#ifndef MZN_EVENTS_H
#define MZN_EVENTS_H

#include "lookup.h"
#include "parse.h"
#include "told.h"
#include "underlay.h"

enum { NO_SLOT = 0xffffffff };

/* What a program knows of a frame at its end, beside the frame. */
struct sight {
	__u64 now;
	__u32 program, verdict;
	__u32 bytes;
	__u32 vni;
	__u32 flags; /* enum mzn_event_flag */
	__u32 slot; /* of the endpoint that it counts for; NO_SLOT: it counts for none */
	__u32 other; /* of its receiver, where it counts for the sender */
	__u32 pad;
};

/* The word that says whether anybody wants frames of that kind. */
static __always_inline __u64 *latest_lease(__u32 verdict)
{
	return verdict < MZN_LIMIT_FIRST_DROP ? &attention.passes : &attention.drops;
}

static __always_inline __u64 read_word(const __u64 *word)
{
	return *(const volatile __u64 *)word;
}

/* One load where nobody reads. A frame that is none of the overlay's is nobody's business. */
static __always_inline bool is_wanted(__u32 verdict)
{
	if (!read_word(&attention.any))
		return false;
	return read_word(latest_lease(verdict)) && verdict != MZN_PASS_PASSED;
}

/* Zero from now on, if it is over. A new reader may have come meanwhile. */
static __always_inline bool is_over(__u64 *lease, __u64 now)
{
	__u64 until = read_word(lease);

	if (now < until)
		return false;
	__sync_val_compare_and_swap(lease, until, 0);
	return true;
}

/* The last lease of all ends with the last one of some kind: whatever frame notices that, nobody looks any further. */
static __always_inline bool is_anybody_there(__u32 verdict, __u64 now)
{
	if (!is_over(latest_lease(verdict), now))
		return true;
	is_over(&attention.any, now);
	return false;
}

/* Before the peer is known, the VNI is what a stranger wrote. */
static __always_inline bool is_strangers(__u32 verdict)
{
	return verdict == MZN_DROP_FOREIGN_LOCAL || verdict == MZN_DROP_GENEVE_OPTIONS ||
	       verdict == MZN_DROP_FOREIGN_PEER;
}

/* Of what no record and no tunnel key was found for, a MAC says whose it may be; the agent's word proves it. */
static __always_inline void guess(struct sight *sight, const struct frame *frame)
{
	/* A copy: before 6.2 what a function was given is no key. */
	struct mzn_mac mac = sight->program == MZN_PROGRAM_AGENT ? frame->source_mac : frame->destination_mac;
	const struct mzn_sender *known = bpf_map_lookup_elem(&senders, &mac);

	if (!known)
		return;
	sight->vni = known->vni;
	if (sight->verdict == MZN_PASS_ACCEPTED_LOCALLY || sight->verdict == MZN_PASS_COPIED)
		sight->slot = known->slot;
	else
		sight->flags |= MZN_EVENT_CLAIMED;
}

struct arp_addresses {
	__u32 sender;
	__u16 target_mac[3];
	__u32 target;
} __attribute__((packed));

/* Who asks, and for whom. */
static __always_inline void read_arp(struct __sk_buff *skb, struct frame *frame)
{
	struct arp_addresses arp;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + 14, &arp, sizeof(arp)))
		return;
	set_ipv4(&frame->source, arp.sender);
	set_ipv4(&frame->destination, arp.target);
}

static __always_inline bool lives_in(__u32 slot, __u32 vni, const struct mzn_ip *ip)
{
	const struct mzn_endpoint *endpoint = find_endpoint(vni, ip);

	return endpoint && endpoint->place == MZN_PLACE_LOCAL && endpoint->slot == slot;
}

/* Is the endpoint that is wanted on either side? A later one may have its slot. */
static __always_inline bool is_of(const struct mzn_reader *reader, const struct sight *sight,
				  const struct frame *frame)
{
	__u32 slot = reader->slot;
	const struct mzn_traffic *of = bpf_map_lookup_elem(&traffic, &slot);

	if (!of || of->instance != reader->endpoint)
		return false;
	if (sight->slot == slot || sight->other == slot)
		return true;
	return !(sight->flags & MZN_EVENT_CLAIMED) &&
	       (lives_in(slot, sight->vni, &frame->source) || lives_in(slot, sight->vni, &frame->destination));
}

/* By itself for the verifier: what follows is the same whatever was compared. */
__noinline int wants(struct mzn_reader *reader, struct sight *sight, struct frame *frame)
{
	__u32 kind;

	if (!reader || !sight || !frame)
		return false;
	kind = sight->verdict < MZN_LIMIT_FIRST_DROP ? MZN_WISH_PASSES : MZN_WISH_DROPS;
	if (reader->until <= sight->now || !(reader->wishes & kind))
		return false;
	if (reader->vni && (reader->vni != sight->vni || sight->flags & MZN_EVENT_CLAIMED))
		return false;
	if (reader->ip.family && !same_ip(&reader->ip, &frame->source) &&
	    !same_ip(&reader->ip, &frame->destination))
		return false;
	return !reader->endpoint || is_of(reader, sight, frame);
}

/* Takes one of the reader's budget on this CPU, unless it is sampled out. */
static __always_inline bool may_give(struct mzn_heard *of, const struct mzn_reader *reader, __u64 now)
{
	__u64 second = now / SECOND, number = of->found;

	of->found = number + 1;
	if (reader->sample > 1 && number % reader->sample)
		return false;
	if (of->second != second) {
		of->second = second;
		of->spent = 0;
	}
	if (of->spent >= MZN_LIMIT_EVENT_BUDGET) {
		of->lost += 1;
		return false;
	}
	of->spent += 1;
	return true;
}

static __always_inline __u64 instance_in(__u32 slot)
{
	const struct mzn_traffic *of = slot == NO_SLOT ? NULL : bpf_map_lookup_elem(&traffic, &slot);

	return of ? of->instance : 0;
}

/* All bytes of it: the ring's memory may hold what another frame left there. */
static __noinline void describe(struct mzn_event *event, const struct sight *sight, const struct frame *frame)
{
	__builtin_memset(event, 0, sizeof(*event));
	event->time = sight->now;
	event->endpoint = instance_in(sight->slot);
	event->slot = sight->slot;
	event->program = sight->program;
	event->verdict = sight->verdict;
	event->vni = sight->vni;
	event->flags = sight->flags;
	event->length = sight->bytes;
	event->ethertype = bpf_ntohs(frame->ethertype);
	event->protocol = frame->protocol;
	event->payload = frame->payload;
	event->source = frame->source;
	event->destination = frame->destination;
}

static __always_inline int load(void *context, bool is_xdp, __u32 at, void *to, __u32 bytes)
{
	return is_xdp ? bpf_xdp_load_bytes(context, at, to, bytes) : bpf_skb_load_bytes(context, at, to, bytes);
}

static __always_inline void capture(void *context, bool is_xdp, __u32 bytes, struct mzn_event *event)
{
	if (!bytes)
		return;
	if (bytes > sizeof(event->data))
		bytes = sizeof(event->data);
	barrier_var(
		bytes); /* or clang leaves out the next line, by which the verifier knows the bounds (before 6.18) */
	bytes = ((bytes - 1) & (sizeof(event->data) - 1)) + 1;
	if (!load(context, is_xdp, 0, event->data, bytes))
		event->captured = bytes;
}

/* To the reader with that index, if it wants the frame. No wake-up: readers look by themselves. */
static __always_inline void give(void *context, bool is_xdp, struct frame *frame, struct sight *sight, __u32 index)
{
	struct mzn_reader *reader = bpf_map_lookup_elem(&readers, &index);
	struct mzn_heard *of = bpf_map_lookup_elem(&heard, &index);
	void *ring = bpf_map_lookup_elem(&rings, &index);
	struct mzn_event *event;

	if (!frame || !sight || !reader || !of || !ring || !wants(reader, sight, frame) ||
	    !may_give(of, reader, sight->now))
		return;
	event = bpf_ringbuf_reserve(ring, sizeof(*event), 0);
	if (!event) {
		of->lost += 1;
		return;
	}
	describe(event, sight, frame);
	capture(context, is_xdp, is_xdp ? sight->bytes : ((struct __sk_buff *)context)->len, event);
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

__noinline int give_frame(struct __sk_buff *skb, struct frame *frame, struct sight *sight, __u32 index)
{
	give(skb, false, frame, sight, index);
	return 0;
}

/* The same on the underlay, where the context is another one. */
__noinline int give_packet(struct xdp_md *ctx, struct frame *frame, struct sight *sight, __u32 index)
{
	give(ctx, true, frame, sight, index);
	return 0;
}

/* As much of it as can be understood, as it is now. */
__noinline int look_again(struct __sk_buff *skb, struct frame *frame, struct sight *sight)
{
	if (!frame || !sight)
		return 0;
	parse(skb, frame);
	if (frame->ethertype == ETHERTYPE_ARP)
		read_arp(skb, frame);
	if (is_strangers(sight->verdict))
		sight->flags |= MZN_EVENT_CLAIMED;
	if (!sight->vni)
		guess(sight, frame);
	return 0;
}

/*
 * Not inline, and each part by itself for the verifier, so that the ways through them do not multiply. A frame that
 * nobody wants to hear of passes none of it.
 */
__noinline int tell_frame(struct __sk_buff *skb, struct frame *frame, struct sight *sight)
{
	if (!frame || !sight)
		return 0;
	sight->now = bpf_ktime_get_ns();
	if (!is_anybody_there(sight->verdict, sight->now))
		return 0;
	look_again(skb, frame, sight);
#pragma unroll
	for (__u32 index = 0; index < MZN_LIMIT_READERS; index++)
		give_frame(skb, frame, sight, index);
	return 0;
}

struct inner {
	struct ethernet eth;
	union {
		struct iphdr ip4;
		struct ipv6hdr ip6;
	};
};

/* Addresses and protocol of the inner packet, of which the transit switch has looked at no more than it needs. */
__noinline int look_inside(struct xdp_md *ctx, struct frame *frame)
{
	__u32 at = ETH_HLEN + (is_ipv6_underlay() ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) +
		   sizeof(struct udphdr);
	struct inner inner;
	__u8 first;

	if (!frame || bpf_xdp_load_bytes(ctx, at, &first, sizeof(first)))
		return 0;
	at += TUNNEL_HEADER + (config.encap == MZN_ENCAP_GENEVE ? (first & 0x3f) * 4 : 0);
	if (bpf_xdp_load_bytes(ctx, at, &inner, ETH_HLEN + sizeof(inner.ip4)))
		return 0;
	frame->ethertype = inner.eth.protocol;
	if (inner.eth.protocol == ETHERTYPE_IPV4) {
		set_ipv4(&frame->source, inner.ip4.saddr);
		set_ipv4(&frame->destination, inner.ip4.daddr);
		frame->protocol = inner.ip4.frag_off & bpf_htons(0x1fff) ? NO_PROTOCOL : inner.ip4.protocol;
		frame->payload = at + ETH_HLEN + inner.ip4.ihl * 4;
	} else if (!bpf_xdp_load_bytes(ctx, at, &inner, sizeof(inner))) {
		set_ipv6(&frame->source, &inner.ip6.saddr);
		set_ipv6(&frame->destination, &inner.ip6.daddr);
		frame->protocol = inner.ip6.nexthdr;
		frame->payload = at + HEADERS;
	}
	return 0;
}

__noinline int tell_packet(struct xdp_md *ctx, struct frame *frame, struct sight *sight)
{
	if (!frame || !sight)
		return 0;
	sight->now = bpf_ktime_get_ns();
	if (!is_anybody_there(sight->verdict, sight->now))
		return 0;
	look_inside(ctx, frame);
#pragma unroll
	for (__u32 index = 0; index < MZN_LIMIT_READERS; index++)
		give_packet(ctx, frame, sight, index);
	return 0;
}

#endif
