// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The shipped programs, whole, in a kernel that a test makes up: what a test run cannot have (a tunnel key, a route,
 * a flow hash, a next hop) comes from the map `twin`, and what the programs ask for is noted there.
 */
#include <stdbool.h>
#include <stddef.h>

#include "kernel.h"

/* Instead of what reads the kernel's structures. */
#define MZN_SK_BUFF_H
#include <lib/metadata.h>

#ifndef MZN_NO_ROUTE_IDENTITY
static __always_inline void read_origin(struct __sk_buff *skb, struct origin *origin)
{
	struct twin *at = find_twin();

	(void)skb;
	if (!at)
		return;
	origin->kind = at->facts.origin;
	origin->ifindex = at->facts.origin_ifindex;
	origin->netns_cookie = at->facts.origin_cookie;
	origin->family = at->facts.origin_family;
}
#endif

static __always_inline bool read_checksum(struct __sk_buff *skb, struct deferred_checksum *checksum)
{
	struct twin *at = find_twin();

	(void)skb;
	if (!at || !at->facts.is_checksum_deferred)
		return false;
	checksum->start = at->facts.checksum_start;
	checksum->place = at->facts.checksum_place;
	return true;
}

#include <lib/count.h>

static __always_inline void note_verdict(__u32 program, __u32 verdict, __u32 bytes)
{
	struct twin *at = find_twin();

	if (!at)
		return;
	at->asked.verdicts += 1;
	at->asked.program = program;
	at->asked.verdict = verdict;
	at->asked.bytes = bytes;
}

static __always_inline void note_sent(__u32 interface, __u32 verdict, __u32 bytes)
{
	struct twin *at = find_twin();

	if (!at)
		return;
	at->asked.sent += 1;
	at->asked.sent_interface = interface;
	at->asked.sent_verdict = verdict;
	at->asked.sent_bytes = bytes;
}

static __always_inline void note_received(__u32 interface, __u32 bytes)
{
	struct twin *at = find_twin();

	if (!at)
		return;
	at->asked.received += 1;
	at->asked.received_interface = interface;
	at->asked.received_bytes = bytes;
}

/* Counted as shipped, and noted. */
#define count_verdict(program, verdict, bytes) \
	(note_verdict(program, verdict, bytes), count_verdict(program, verdict, bytes))
#define count_sent(interface, verdict, bytes) \
	(note_sent(interface, verdict, bytes), count_sent(interface, verdict, bytes))
#define count_received(interface, bytes) (note_received(interface, bytes), count_received(interface, bytes))

#include <lib/arp_nd.h>
#include <lib/gateway.h>

/* The programs become functions of the ones below. */
#pragma push_macro("SEC")
#undef SEC
#define SEC(name) static __always_inline
#define mzn_agent shipped_agent
#define mzn_guard shipped_guard
#define mzn_switch shipped_switch
#include <agent.h>
#include <guard.h>
#include <switch.h>
#undef mzn_agent
#undef mzn_guard
#undef mzn_switch
#pragma pop_macro("SEC")

/* What a test run does not take as input: frames shorter than their headers, and a VLAN tag beside the frame. */
static __always_inline bool prepare(struct __sk_buff *skb)
{
	struct twin *at = find_twin();

	if (!at)
		return false;
	if (at->facts.length && bpf_skb_change_tail(skb, at->facts.length, 0))
		return false;
	return !at->facts.tag || !bpf_skb_vlan_push(skb, bpf_htons(at->facts.tag >> 16), at->facts.tag & 0xffff);
}

SEC("tc")
int mzn_agent(struct __sk_buff *skb)
{
	return prepare(skb) ? shipped_agent(skb) : TC_ACT_UNSPEC;
}

SEC("tc")
int mzn_guard(struct __sk_buff *skb)
{
	return prepare(skb) ? shipped_guard(skb) : TC_ACT_UNSPEC;
}

SEC("xdp.frags")
int mzn_switch(struct xdp_md *ctx)
{
	return shipped_switch(ctx);
}

char license_name[] SEC("license") = "Dual BSD/GPL";
