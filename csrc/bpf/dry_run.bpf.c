// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The programs of transit.bpf.c, whole, in a kernel that user space makes up: what a test run cannot have (a tunnel key,
 * a route, a flow hash, a next hop) comes from the map `dry_run`, and what the programs ask for is noted there.
 */
#include "dry_run/helpers.h"
#include "dry_run/kernel.h"

#include "dry_run/count.h"
#include "lib/enumerations.h"

/* The programs become functions of the ones below. */
#pragma push_macro("SEC")
#undef SEC
#define SEC(name) static __always_inline
#define mzn_agent shipped_agent
#define mzn_guard shipped_guard
#define mzn_shortcut shipped_shortcut
#define mzn_switch shipped_switch
#include "agent.bpf.c"
#include "guard.bpf.c"
#include "shortcut.bpf.c"
#include "switch.bpf.c"
#undef mzn_agent
#undef mzn_guard
#undef mzn_shortcut
#undef mzn_switch
#pragma pop_macro("SEC")

/* What a test run does not take as input: frames shorter than headers or longer than a page, a VLAN tag beside them. */
static __always_inline bool prepare(struct __sk_buff *skb)
{
	struct dry_run *run = shared_run();

	if (!run)
		return false;
	if (run->facts.length && bpf_skb_change_tail(skb, run->facts.length, 0))
		return false;
	return !run->facts.tag || !bpf_skb_vlan_push(skb, bpf_htons(run->facts.tag >> 16), run->facts.tag & 0xffff);
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

SEC("tc")
int mzn_shortcut(struct __sk_buff *skb)
{
	return prepare(skb) ? shipped_shortcut(skb) : TC_ACT_UNSPEC;
}

SEC("xdp.frags")
int mzn_switch(struct xdp_md *ctx)
{
	return shipped_switch(ctx);
}

char license_name[] SEC("license") = "Dual BSD/GPL";
