/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs on the underlay's device meet there: tunnel packets with their outer headers, among all others. That
 * device outlives the tunnel.
 */
#ifndef MZN_UNDERLAY_H
#define MZN_UNDERLAY_H

#include <linux/udp.h>

#include "outer.h"
#include "parse.h"

enum {
	TUNNEL_HEADER = 8, /* VXLAN's whole, Geneve's fixed part */
	VXLAN_FLAGS = 0x08, /* "VNI present", and nothing else */
	GENEVE_ETHERNET = bpf_htons(0x6558), /* what Geneve carries */
	GENEVE_OAM_CRITICAL = 0xc0,
};

/* Where the outer headers of one packet are. `udp` and what follows stand behind the family's IP header. */
struct outer_headers {
	struct ethernet *eth;
	struct iphdr *ip4; /* one of the two */
	struct ipv6hdr *ip6;
	struct udphdr *udp;
	__u8 *tunnel;
	void *inner;
	void *end;
};

static __always_inline bool find_ipv4(struct outer_headers *at)
{
	struct iphdr *ip = (void *)(at->eth + 1);

	if (at->eth->protocol != ETHERTYPE_IPV4 || (void *)(ip + 1) > at->end)
		return false;
	/* Options and fragments are the kernel's: it reassembles, and the guard bounces. */
	if (ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_UDP || ip->frag_off & bpf_htons(0x3fff) ||
	    ip->daddr != config.local.words[3])
		return false;
	at->ip4 = ip;
	at->udp = (void *)(ip + 1);
	return true;
}

static __always_inline bool find_ipv6(struct outer_headers *at)
{
	struct ipv6hdr *ip = (void *)(at->eth + 1);

	if (at->eth->protocol != ETHERTYPE_IPV6 || (void *)(ip + 1) > at->end)
		return false;
	if (ip->version != 6 || ip->nexthdr != IPPROTO_UDP || !is_own_host(ip->daddr.in6_u.u6_addr32))
		return false;
	at->ip6 = ip;
	at->udp = (void *)(ip + 1);
	return true;
}

/* The length of the tunnel header, or zero for one that is the kernel's to judge. */
static __always_inline __u32 tunnel_header(const __u8 *tunnel)
{
	if (config.encap == MZN_ENCAP_VXLAN)
		return tunnel[0] == VXLAN_FLAGS && !(tunnel[1] | tunnel[2] | tunnel[3] | tunnel[7]) ?
			       TUNNEL_HEADER :
			       0;
	if (tunnel[0] & 0xc0 || tunnel[1] & GENEVE_OAM_CRITICAL || *(__be16 *)(tunnel + 2) != GENEVE_ETHERNET)
		return 0;
	return TUNNEL_HEADER + (tunnel[0] & 0x3f) * 4;
}

/* Is this a packet of our tunnel to this host? Everything else is not ours. */
static __always_inline bool find_outer(struct outer_headers *at, void *data, void *end)
{
	__u32 length;

	at->end = end;
	at->eth = data;
	if ((void *)(at->eth + 1) > at->end || !(is_ipv6_underlay() ? find_ipv6(at) : find_ipv4(at)))
		return false;
	at->tunnel = (void *)(at->udp + 1);
	if ((void *)(at->tunnel + TUNNEL_HEADER) > at->end || at->udp->dest != bpf_htons(config.port))
		return false;
	length = tunnel_header(at->tunnel);
	at->inner = at->tunnel + length;
	return length != 0;
}

static __always_inline __u32 vni_of(const struct outer_headers *at)
{
	return at->tunnel[4] << 16 | at->tunnel[5] << 8 | at->tunnel[6];
}

static __always_inline void set_source(struct mzn_ip *source, const struct outer_headers *at)
{
	if (is_ipv6_underlay())
		set_ipv6(source, &at->ip6->saddr);
	else
		set_ipv4(source, at->ip4->saddr);
}

/*
 * The index of the tunnel's device, in `lifeline` or `landing`; NULL without one, or if the program's own `device` has
 * left the namespace: then nothing here is the overlay's any more.
 */
static __always_inline const __u32 *find_tunnel(void *map, void *device)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(device, &zero) ? bpf_map_lookup_elem(map, &zero) : NULL;
}

#endif
