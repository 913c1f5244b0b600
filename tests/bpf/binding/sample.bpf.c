// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One of each kind of map, and programs small enough to know their answer by heart. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

enum sample_colour {
	SAMPLE_RED = 3,
	SAMPLE_BELOW = -7,
};

struct sample_inner {
	__u8 address[16];
	__u16 port;
};

struct sample_value {
	__u32 number;
	union {
		__u64 wide;
		__u32 halves[2];
	};
	struct sample_inner inner[2];
	enum sample_colour colour;
	__u8 matrix[2][3];
};

struct sample_prefix {
	__u32 length;
	__u8 address[4];
};

const volatile __u32 answer = 1;
const volatile __u8 secret[6] = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, struct sample_value);
} table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 64);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sample_prefix);
	__type(value, __u32);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64[2]);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} narrow SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

/* Count the frame, report its length, write a mark and the configured answer. */
SEC("tc")
int first(struct __sk_buff *skb)
{
	struct sample_value *value;
	__u64 key = 1;
	__u32 index = 2, length = skb->len;
	__u64 *counter = bpf_map_lookup_elem(&counters, &index);

	if (counter) {
		counter[0] += 1;
		counter[1] += length;
	}
	bpf_ringbuf_output(&events, &length, sizeof(length), 0);
	value = bpf_map_lookup_elem(&table, &key);
	if (value)
		value->number++;
	skb->mark += 1;
	bpf_skb_store_bytes(skb, 0, (void *)&secret, sizeof(secret), 0);
	return answer;
}

SEC("tc")
int second(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

SEC("xdp.frags")
int turn(struct xdp_md *xdp)
{
	return bpf_xdp_adjust_head(xdp, -8) ? XDP_ABORTED : XDP_TX;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
