// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* For tests: how many frames pass a hook, and how many of them carry a mark, or a priority. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

enum { FRAMES, MARKED, WITH_PRIORITY, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 what)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &what);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

SEC("tc")
int look(struct __sk_buff *skb)
{
	count(FRAMES);
	if (skb->mark)
		count(MARKED);
	if (skb->priority)
		count(WITH_PRIORITY);
	return TC_ACT_UNSPEC;
}

char license_name[] SEC("license") = "Dual BSD/GPL";
