// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * For tests: what a frame carries at the tunnel's egress, written down before the agent decides; and what a
 * container with CAP_NET_ADMIN may do to its own frames.
 */
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct net {
	__u64 net_cookie;
};
typedef struct {
	struct net *net;
} possible_net_t;
struct sock_common {
	possible_net_t skc_net;
	unsigned short skc_family;
};
struct sock {
	struct sock_common __sk_common;
};
struct net_device {
	possible_net_t nd_net;
	int ifindex;
};
struct dst_entry {
	struct net_device *dev;
};
struct sk_buff {
	struct sock *sk;
	unsigned long _skb_refdst;
};
#pragma clang attribute pop

extern void *bpf_cast_to_kern_ctx(void *obj) __ksym;
extern void *bpf_rdonly_cast(void *obj, __u32 btf_id) __ksym;

enum {
	NO_SOCKET = 0xffff, /* as a family */
	MORE_OR_OFFSET = 0x3fff, /* of an IPv4 fragment */
	PAYLOAD = ETH_HLEN + sizeof(struct ipv6hdr),
};

struct seen {
	__u64 socket_netns; /* cookies; 0: there is none */
	__u64 device_netns;
	__u32 device_ifindex;
	__u32 mark;
	__u16 socket_family;
	__u16 ethertype;
	__u8 source_mac[ETH_ALEN];
	__u8 protocol; /* above IP */
	__u8 detail; /* TCP flags, ICMP type, ARP operation */
	__u8 super_packet;
	__u8 fragment;
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct seen);
	__type(value, __u64);
} frames SEC(".maps");

const volatile __u8 pretended_mac[ETH_ALEN];

static __always_inline __u8 byte_at(struct __sk_buff *skb, __u32 offset)
{
	__u8 value = 0;

	bpf_skb_load_bytes(skb, offset, &value, sizeof(value));
	return value;
}

static __always_inline __u8 detail_of(struct __sk_buff *skb, __u8 protocol, __u32 offset)
{
	return byte_at(skb, protocol == IPPROTO_TCP ? offset + 13 : offset);
}

static __always_inline void describe_ipv4(struct __sk_buff *skb, struct seen *seen)
{
	struct iphdr ip = {};

	bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip));
	seen->protocol = ip.protocol;
	seen->fragment = (ip.frag_off & bpf_htons(MORE_OR_OFFSET)) != 0;
	if (!seen->fragment && ip.protocol != IPPROTO_UDP)
		seen->detail = detail_of(skb, ip.protocol, ETH_HLEN + ip.ihl * 4);
}

static __always_inline void describe_ipv6(struct __sk_buff *skb, struct seen *seen)
{
	__u8 next = byte_at(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr));
	__u32 offset = PAYLOAD;

	if (next == IPPROTO_HOPOPTS) { /* of MLD: eight bytes */
		next = byte_at(skb, PAYLOAD);
		offset += 8;
	}
	seen->protocol = next;
	seen->fragment = next == IPPROTO_FRAGMENT;
	if (!seen->fragment && next != IPPROTO_UDP)
		seen->detail = detail_of(skb, next, offset);
}

static __always_inline void describe_origin(struct __sk_buff *skb, struct seen *seen)
{
	struct sk_buff *packet = bpf_cast_to_kern_ctx(skb);
	unsigned long route = packet->_skb_refdst & ~1UL;
	struct sock *socket = packet->sk;
	struct net_device *device = NULL;
	struct dst_entry *dst;

	seen->socket_family = NO_SOCKET;
	if (socket) {
		seen->socket_family = socket->__sk_common.skc_family;
		seen->socket_netns = socket->__sk_common.skc_net.net->net_cookie;
	}
	if (route) {
		dst = bpf_rdonly_cast((void *)route, bpf_core_type_id_kernel(struct dst_entry));
		device = dst->dev;
	}
	if (device) {
		seen->device_netns = device->nd_net.net->net_cookie;
		seen->device_ifindex = device->ifindex;
	}
}

SEC("tc")
int observe(struct __sk_buff *skb)
{
	struct seen seen = {};
	__u64 one = 1, *count;

	bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), seen.source_mac, ETH_ALEN);
	seen.ethertype = bpf_ntohs(skb->protocol);
	seen.mark = skb->mark;
	seen.super_packet = skb->gso_segs > 1;
	if (seen.ethertype == ETH_P_ARP)
		seen.detail = byte_at(skb, ETH_HLEN + 7);
	else if (seen.ethertype == ETH_P_IP)
		describe_ipv4(skb, &seen);
	else if (seen.ethertype == ETH_P_IPV6)
		describe_ipv6(skb, &seen);
	describe_origin(skb, &seen);
	count = bpf_map_lookup_elem(&frames, &seen);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		bpf_map_update_elem(&frames, &seen, &one, BPF_NOEXIST);
	return TC_ACT_UNSPEC;
}

/* On a container's own device: leave in another's name. */
SEC("tc")
int pretend(struct __sk_buff *skb)
{
	__u8 mac[ETH_ALEN];

	for (int i = 0; i < ETH_ALEN; i++)
		mac[i] = pretended_mac[i];
	bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), mac, ETH_ALEN, 0);
	return TC_ACT_UNSPEC;
}

char license_name[] SEC("license") = "Dual BSD/GPL";
