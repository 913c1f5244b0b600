/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who sent this frame? The source MAC is the sender's word. The proof is the device the packet was routed
 * through: MACVLAN and tunnel keep the route on the packet, every way between namespaces drops it, and only
 * the sender's own stack can attach one. The socket alone is no proof: a cold echo reply carries the initial
 * namespace's, a SYN cookie none, a reflected frame the victim's (docs/design.md has the table).
 */
#ifndef MZN_IDENTITY_H
#define MZN_IDENTITY_H

#include "tunnel.h"

#ifdef MZN_NO_ROUTE_IDENTITY

/* Kernels before 6.2 cannot read the route: source MAC and source address have to do. */
static __always_inline int identify(struct __sk_buff *skb, const struct frame *frame,
				    const struct mzn_interface *sender)
{
	(void)skb, (void)frame, (void)sender;
	return 0;
}

static __always_inline bool has_no_origin(struct __sk_buff *skb)
{
	(void)skb;
	return true;
}

#else

#include <bpf/bpf_core_read.h>

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
};
#pragma clang attribute pop

extern void *bpf_cast_to_kern_ctx(void *obj) __ksym;
extern void *bpf_rdonly_cast(void *obj, __u32 btf_id) __ksym;

enum {
	DST_NOREF = 1, /* the low bit of _skb_refdst is a flag */
	FAMILY_NONE = 0, /* the socket of a tap */
	FAMILY_PACKET = 17,
	FAMILY_XDP = 44,
};

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

static __always_inline int identify(struct __sk_buff *skb, const struct frame *frame,
				    const struct mzn_interface *sender)
{
	struct sk_buff *packet = bpf_cast_to_kern_ctx(skb);
	struct net_device *device = routed_device(packet);
	struct sock *socket;
	__u16 family;

	if (device) {
		if (device->nd_net.net->net_cookie != sender->netns_cookie)
			return MZN_FOREIGN_DEVICE;
		/* Between its creation and its record's completion the index of the device is not known. */
		if (sender->ifindex && (__u32)device->ifindex != sender->ifindex)
			return MZN_FOREIGN_DEVICE;
		return 0;
	}
	socket = packet->sk;
	if (!socket)
		return frame->ethertype == MZN_ARP ? 0 : MZN_NO_ORIGIN;
	family = socket->__sk_common.skc_family;
	if (family != FAMILY_PACKET && family != FAMILY_XDP && family != FAMILY_NONE)
		return MZN_REFLECTED;
	if (socket->__sk_common.skc_net.net->net_cookie != sender->netns_cookie)
		return MZN_FOREIGN_SOCKET;
	return 0;
}

static __always_inline bool has_no_origin(struct __sk_buff *skb)
{
	struct sk_buff *packet = bpf_cast_to_kern_ctx(skb);

	return !packet->sk && !routed_device(packet);
}

#endif

/*
 * A frame that the guard bounced comes by again. The mark alone is no credential, tenants can set marks; but only
 * what the tunnel received carries its interface and a tunnel key, and no socket or route of a tenant's.
 */
static __always_inline bool is_bounced(struct __sk_buff *skb)
{
	struct outer outer;

	return skb->mark == config.mark_bounced && skb->ingress_ifindex == skb->ifindex && has_no_origin(skb) &&
	       get_outer(skb, &outer);
}

static __always_inline bool is_unspecified(const struct mzn_ip *ip)
{
	return ip->family == 6 && !(ip->words[0] | ip->words[1] | ip->words[2] | ip->words[3]);
}

/* The link-local address that a stack makes of the sender's MAC by default (RFC 4291, appendix A). */
static __always_inline bool is_link_local_of(const struct mzn_mac *mac, const struct mzn_ip *ip)
{
	const __u8 *own = mac->bytes;

	return ip->family == 6 && ip->words[0] == bpf_htonl(0xfe800000) && !ip->words[1] &&
	       ip->words[2] == bpf_htonl((own[0] ^ 2) << 24 | own[1] << 16 | own[2] << 8 | 0xff) &&
	       ip->words[3] == bpf_htonl(0xfe000000 | own[3] << 16 | own[4] << 8 | own[5]);
}

static __always_inline bool owns(const struct mzn_interface *interface, const struct mzn_ip *ip)
{
	for (int i = 0; i < MZN_ADDRESSES; i++)
		if (same_ip(&interface->addresses[i].ip, ip))
			return true;
	return false;
}

#endif
