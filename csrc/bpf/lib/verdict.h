/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The end of every program: the packet is counted, and what its verdict says is done with it. */
#ifndef MZN_VERDICT_H
#define MZN_VERDICT_H

#include <linux/pkt_cls.h>

#include "bounce.h"
#include "count.h"
#include "events.h"
#include "fate.h"
#include "packet.h"

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

/*
 * Refused by the guard, or not finished by the shortcut: an endpoint of this host misses it. A frame that a copy replaces
 * has no destination here. Not inline, for the same reason as count_refused.
 */
static __noinline int keep_out(const struct mzn_endpoint *to, __u32 verdict, __u32 bytes)
{
	if (to && to->place == MZN_PLACE_LOCAL)
		count_undelivered(to->slot, verdict, bytes);
	return TC_ACT_SHOT;
}

static __always_inline int let_in(struct __sk_buff *skb, const struct packet *packet, int verdict)
{
	switch (guard_fate(verdict)) {
	case FATE_GO_ON:
		skb->mark = 0;
		return TC_ACT_OK;
	case FATE_TURN:
		sign_bounced(skb);
		return bpf_redirect(skb->ifindex, 0);
	default:
		return keep_out(packet->to, verdict, packet->bytes);
	}
}

/* Behind it comes the guard, which has the agent's mark for a word: whatever mark the packet came with is gone. */
static __always_inline int hand_over(struct __sk_buff *skb, const struct packet *packet, int verdict)
{
	switch (shortcut_fate(verdict)) {
	case FATE_GO_ON:
		return TC_ACT_UNSPEC; /* on to the next program, and up the kernel's way */
	case FATE_TURN:
		skb->mark = config.mark_local;
		return bpf_redirect(packet->tunnel, BPF_F_INGRESS);
	default:
		return keep_out(packet->to, verdict, packet->bytes);
	}
}

static __always_inline int act(void *context, enum mzn_program program, const struct packet *packet, int verdict)
{
	switch (program) {
	case MZN_PROGRAM_AGENT:
		return let_out(context, verdict);
	case MZN_PROGRAM_GUARD:
		return let_in(context, packet, verdict);
	case MZN_PROGRAM_SWITCH:
		return switch_fate(verdict) == FATE_TURN ? XDP_TX : XDP_PASS;
	case MZN_PROGRAM_SHORTCUT:
		return hand_over(context, packet, verdict);
	}
}

/* Did an endpoint get the packet, from this program? The guard lets in what agent and shortcut have counted. */
static __always_inline bool is_received(enum mzn_program program, int verdict)
{
	return (program == MZN_PROGRAM_AGENT && verdict == MZN_PASS_DELIVERED_LOCALLY) ||
	       ((program == MZN_PROGRAM_GUARD || program == MZN_PROGRAM_SHORTCUT) && verdict == MZN_PASS_ACCEPTED);
}

/* The endpoint of this host that it goes to; NO_SLOT: to none. */
static __always_inline __u32 receiver(const struct packet *packet)
{
	return packet->to && packet->to->place == MZN_PLACE_LOCAL ? packet->to->slot : NO_SLOT;
}

static __always_inline struct sight sight_of(enum mzn_program program, const struct packet *packet, int verdict)
{
	struct sight sight = {
		.program = program,
		.verdict = verdict,
		.bytes = packet->bytes,
		.vni = packet->vni,
		.slot = packet->sender ? packet->sender->slot : NO_SLOT,
		.other = receiver(packet),
	};

	if (program != MZN_PROGRAM_AGENT)
		sight.slot = sight.other;
	return sight;
}

/*
 * Tells those who want to know. Not inline, for the same reason as count_refused; and one for each type of context, as
 * before 6.8 the verifier judges functions of a program that it never calls.
 */
static __noinline void report_frame(struct __sk_buff *skb, enum mzn_program program, struct packet *packet,
				    int verdict)
{
	struct sight sight = sight_of(program, packet, verdict);

	packet->frame = (struct frame){}; /* it may have been changed since it was parsed, or never was */
	tell_frame(skb, &packet->frame, &sight);
}

static __noinline void report_packet(struct xdp_md *ctx, struct packet *packet, int verdict)
{
	struct sight sight = sight_of(MZN_PROGRAM_SWITCH, packet, verdict);

	packet->frame = (struct frame){};
	tell_packet(ctx, &packet->frame, &sight);
}

static __always_inline void report(void *context, enum mzn_program program, struct packet *packet, int verdict)
{
	if (program == MZN_PROGRAM_SWITCH)
		report_packet(context, packet, verdict);
	else
		report_frame(context, program, packet, verdict);
}

/* What the kernel is told. `program` is a constant, so that each program has its own part of this alone. */
static __always_inline int conclude(void *context, enum mzn_program program, struct packet *packet, int verdict)
{
	count_verdict(program, verdict, packet->bytes);
	if (program == MZN_PROGRAM_AGENT && packet->sender)
		count_sent(packet->sender->slot, verdict, packet->bytes);
	if (is_received(program, verdict) && packet->to)
		count_received(packet->to->slot, packet->bytes);
	if (is_wanted(verdict))
		report(context, program, packet, verdict);
	return act(context, program, packet, verdict);
}

#endif
