// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Reads a packet without looking at its end: the verifier must refuse. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("tc")
int fine(struct __sk_buff *skb)
{
	return skb->len > 100;
}

SEC("tc")
int careless(struct __sk_buff *skb)
{
	return *(__u8 *)(long)skb->data;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
