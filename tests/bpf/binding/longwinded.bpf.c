// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Thousands of instructions before the mistake, for a log longer than any first buffer. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("tc")
int longwinded(struct __sk_buff *skb)
{
	volatile __u64 sum = 0;

#pragma unroll
	for (int round = 0; round < 1000; round++)
		sum += round * 3;
	return sum + *(__u8 *)(long)skb->data;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
