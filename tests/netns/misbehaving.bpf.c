// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* In the place of programs and maps of csrc/bpf/behaviours.bpf.c: what they would show on a kernel that does not behave. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} number SEC(".maps");

/* Knows its keys, and no prefix. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__type(key, __u64);
	__type(value, __u32);
} very_keys SEC(".maps");

/* The chain goes on. */
SEC("tc")
int answers_next(struct __sk_buff *skb)
{
	(void)skb;
	return TC_ACT_UNSPEC;
}

/* The frame arrives with half of its signature. */
SEC("tc")
int bounces_bare(struct __sk_buff *skb)
{
	skb->mark = 0x8d7a0001;
	return bpf_redirect(skb->ifindex, 0);
}

SEC("tc")
int turns_in_bare(struct __sk_buff *skb)
{
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

/* A number that does not know that it is a device's. */
SEC("xdp")
int sees_number(struct xdp_md *ctx)
{
	__u32 zero = 0, *found = bpf_map_lookup_elem(&number, &zero);

	(void)ctx;
	return found && *found ? XDP_PASS : XDP_DROP;
}

char license_name[] SEC("license") = "Dual BSD/GPL";
