/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the kernel knows of a packet besides its bytes: where it is from, and what is left to a device. */
#ifndef MZN_KERNEL_H
#define MZN_KERNEL_H

#include <linux/if_packet.h>

#include <bpf/bpf_core_read.h>

#include "packet.h"

/* The few members that are read, relocated to the running kernel's layout at load. */
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
	unsigned char *head, *data;
	__u16 csum_start, csum_offset; /* from the head; from there */
	__u8 ip_summed : 2;
};
#pragma clang attribute pop

enum { CHECKSUM_PARTIAL = 3 };

#ifdef MZN_NO_ROUTE_IDENTITY

/* Before 6.2 the context cannot be cast to the packet that it is, but its bytes can be copied. */
#define packet_of(skb) ((struct sk_buff *)(skb))
#define read(packet, member) BPF_CORE_READ(packet, member)
#define read_bits(packet, member) BPF_CORE_READ_BITFIELD_PROBED(packet, member)

#else

extern void *bpf_cast_to_kern_ctx(void *obj) __ksym;
extern void *bpf_rdonly_cast(void *obj, __u32 btf_id) __ksym;

#define packet_of(skb) ((struct sk_buff *)bpf_cast_to_kern_ctx(skb))
#define read(packet, member) ((packet)->member)
#define read_bits(packet, member) BPF_CORE_READ_BITFIELD(packet, member)

enum { DST_NOREF = 1 }; /* the low bit of _skb_refdst is a flag */

/* The device the packet was routed through, or NULL. Tunnel metadata is a route without a device. */
static __always_inline struct net_device *routed_device(struct sk_buff *packet)
{
	unsigned long route = packet->_skb_refdst & ~(unsigned long)DST_NOREF;
	struct dst_entry *dst;

	if (!route)
		return NULL;
	dst = bpf_rdonly_cast((void *)route, bpf_core_type_id_kernel(struct dst_entry));
	return dst->dev;
}

static __always_inline void read_origin(struct __sk_buff *skb, struct origin *origin)
{
	struct sk_buff *packet = packet_of(skb);
	struct net_device *device = routed_device(packet);
	struct sock *socket;

	origin->kind = ORIGIN_NONE;
	if (device) {
		origin->kind = ORIGIN_DEVICE;
		origin->netns_cookie = device->nd_net.net->net_cookie;
		origin->ifindex = device->ifindex;
		return;
	}
	socket = packet->sk;
	if (!socket)
		return;
	origin->kind = ORIGIN_SOCKET;
	origin->netns_cookie = socket->__sk_common.skc_net.net->net_cookie;
	origin->family = socket->__sk_common.skc_family;
}

#endif

/* Is the outer Ethernet address the device's own? The NIC gets more: promiscuous, multicast, broadcast. */
static __always_inline bool is_to_host(struct __sk_buff *skb)
{
	return skb->pkt_type == PACKET_HOST;
}

/* Bytes of data in each segment of a packet that is still to be segmented; else 0. */
static __always_inline __u32 segment_size(struct __sk_buff *skb)
{
	return skb->gso_size;
}

/* False if no checksum is left to a device. */
static __always_inline bool read_checksum(struct __sk_buff *skb, struct deferred_checksum *checksum)
{
	struct sk_buff *packet = packet_of(skb);

	if (read_bits(packet, ip_summed) != CHECKSUM_PARTIAL)
		return false;
	checksum->start = read(packet, csum_start) - (__u32)(read(packet, data) - read(packet, head));
	checksum->place = checksum->start + read(packet, csum_offset);
	return true;
}

#undef packet_of
#undef read
#undef read_bits

#endif
