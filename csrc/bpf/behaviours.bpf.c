// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Small programs that show whether the kernel does what agent, guard and switch rely on.
 * mizarnet/_kernel/behaviours.py puts them on devices of a namespace made for that, and sends frames by them.
 */
#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef MZN_NO_ROUTE_IDENTITY
#include "lib/kernel.h"
#endif

enum {
	TEST_FRAME = bpf_htons(0x88b5), /* the protocol of the frames sent: local experimental (IEEE 802) */
	MARK = 0x8d7a0001,
	TOKEN = 0x6d7a6e00, /* and the next two numbers */
};

struct two_counters {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
};

/* Frames that came by a program behind others: on egress, on ingress. */
struct two_counters behind SEC(".maps");

/* Redirected frames: those that lost what was written beside them, those that kept it. */
struct two_counters bounced SEC(".maps");
struct two_counters turned SEC(".maps");

/* Used by no program, and kept by one that it is bound to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} bound SEC(".maps");

/* A device, until it ends. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} device SEC(".maps");

struct prefix {
	__u32 length; /* in bits */
	__u8 address[4];
};

/* Prefixes of one address, with their lengths as values; used by no program. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u32);
} prefixes SEC(".maps");

static __always_inline bool is_test_frame(struct __sk_buff *skb)
{
	return skb->protocol == TEST_FRAME;
}

static __always_inline void count(void *counters, __u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(counters, &which);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* Only a frame that was received has such an interface. */
static __always_inline bool is_ingress(struct __sk_buff *skb)
{
	return skb->ingress_ifindex != 0;
}

/* As agent and guard answer: never with "next". */
SEC("tc")
int answers_ok(struct __sk_buff *skb)
{
	(void)skb;
	return TC_ACT_OK;
}

/* Stands where nothing may come by while `answers_ok` is ahead. */
SEC("tc")
int stands_behind(struct __sk_buff *skb)
{
	if (is_test_frame(skb))
		count(&behind, is_ingress(skb));
	return TC_ACT_OK;
}

/* Ingress: out by the device's own egress, signed like the guard's bounced frames (lib/bounce.h). */
SEC("tc")
int bounces(struct __sk_buff *skb)
{
	if (!is_test_frame(skb))
		return TC_ACT_OK;
	skb->mark = MARK;
	skb->cb[0] = TOKEN;
	skb->cb[1] = TOKEN + 1;
	skb->cb[2] = TOKEN + 2;
	return bpf_redirect(skb->ifindex, 0);
}

/* Egress: the signature must have come along, and so must the interface that the frame was received by. */
SEC("tc")
int meets_bounced(struct __sk_buff *skb)
{
	bool whole = skb->mark == MARK && skb->cb[0] == TOKEN && skb->cb[1] == TOKEN + 1 &&
		     skb->cb[2] == TOKEN + 2 && skb->ingress_ifindex == skb->ifindex;

	if (!is_test_frame(skb))
		return TC_ACT_OK;
	count(&bounced, whole);
	return TC_ACT_SHOT;
}

/* Egress: to the device's own ingress, marked like the agent's frames for endpoints of this host. */
SEC("tc")
int turns_in(struct __sk_buff *skb)
{
	if (!is_test_frame(skb))
		return TC_ACT_OK;
	skb->mark = MARK;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

SEC("tc")
int meets_turned(struct __sk_buff *skb)
{
	if (is_test_frame(skb))
		count(&turned, skb->mark == MARK);
	return TC_ACT_OK;
}

/* Passes while `device` has its entry, and drops without. */
SEC("xdp")
int sees_device(struct xdp_md *ctx)
{
	__u32 zero = 0;

	(void)ctx;
	return bpf_map_lookup_elem(&device, &zero) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int passes(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

#ifndef MZN_NO_ROUTE_IDENTITY

/* Where the last IPv4 packet came from, as the agent sees it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct origin);
} last_origin SEC(".maps");

SEC("tc")
int reads_origin(struct __sk_buff *skb)
{
	struct origin origin = {};
	__u32 zero = 0;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	read_origin(skb, &origin);
	bpf_map_update_elem(&last_origin, &zero, &origin, BPF_ANY);
	return TC_ACT_OK;
}

#endif

char license_name[] SEC("license") = "Dual BSD/GPL";
