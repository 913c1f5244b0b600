// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Calls a kernel function that no kernel has. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

extern int mzn_no_such_function(struct __sk_buff *skb) __ksym;

SEC("tc")
int caller(struct __sk_buff *skb)
{
	return mzn_no_such_function(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
