// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The transit switch: XDP on the underlay of a host that bounces tunnel packets on to where an endpoint lives. It
 * passes or transmits, nothing else. What it cannot finish it passes, and the guard bounces it through the kernel.
 *
 * A VLAN tag that the device or the kernel keeps beside the frame cannot be seen here. The generic hook bounces such a
 * frame with its tag, so that it stays in its VLAN; the native one loses the tag: a device on a trunk must leave tags
 * in the bytes (ethtool: rxvlan off; on the peer of a veth, txvlan off).
 */
#include "lib/checksum.h"
#include "lib/lookup.h"
#include "lib/underlay.h"
#include "lib/verdict.h"

/* Of the inner frame no more than what says where it goes: the VNI and the destination. */
static __always_inline bool parse_inner(const struct outer_headers *at, struct packet *packet)
{
	struct ethernet *eth = at->inner;
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	struct iphdr *ip4 = (void *)(eth + 1);

	packet->vni = vni_of(at);
	if ((void *)(ip4 + 1) > at->end)
		return false;
	packet->frame.ethertype = eth->protocol;
	if (eth->protocol == ETHERTYPE_IPV4) {
		set_ipv4(&packet->frame.destination, ip4->daddr);
		return true;
	}
	if (eth->protocol != ETHERTYPE_IPV6 || (void *)(ip6 + 1) > at->end)
		return false;
	set_ipv6(&packet->frame.destination, &ip6->daddr);
	return true;
}

/* The host or transit switch that the tables name; NULL if the endpoint, or its next hop, is here or unknown. */
static __always_inline const __u32 *named_host(const struct outer_headers *at, struct packet *packet)
{
	const struct mzn_network *network;

	packet->to = find_endpoint(packet->vni, &packet->frame.destination);
	if (!packet->to) {
		network = find_network(packet->vni, &packet->frame.destination);
		if (!network)
			return NULL;
		if (!has_next_hop(network)) /* the source port is the sender's hash of the inner flow */
			return choose_switch(network, bpf_ntohs(at->udp->source));
		packet->to = find_via(packet->vni, network);
	}
	return packet->to && packet->to->place == MZN_PLACE_REMOTE ? packet->to->host : NULL;
}

/* The host to send on to; NULL if there is none, or the frame is for the guard to refuse. */
static __always_inline const __u32 *next_host(const struct outer_headers *at, struct packet *packet)
{
	struct mzn_ip source;
	const __u32 *host;

	set_source(&source, at);
	if (!parse_inner(at, packet) || !is_peer(&source))
		return NULL;
	host = named_host(at, packet);
	return host && same_words(host, source.words) ? NULL : host;
}

/* Asks the kernel's routes for the way to `host`, which must lead out of the device the packet came in by. */
static __always_inline int find_next_hop(struct xdp_md *ctx, const __u32 *host, struct bpf_fib_lookup *hop)
{
	*hop = (struct bpf_fib_lookup){};
	hop->ifindex = ctx->ingress_ifindex;
	hop->l4_protocol = IPPROTO_UDP;
	if (is_ipv6_underlay()) {
		hop->family = FAMILY_IPV6;
		for (int i = 0; i < 4; i++) {
			hop->ipv6_src[i] = config.local.words[i];
			hop->ipv6_dst[i] = host[i];
		}
	} else {
		hop->family = FAMILY_IPV4;
		hop->ipv4_src = config.local.words[3];
		hop->ipv4_dst = host[3];
	}
	switch (bpf_fib_lookup(ctx, hop, sizeof(*hop), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return hop->ifindex == ctx->ingress_ifindex ? MZN_PASS_BOUNCED : MZN_PASS_PASSED_OTHER_INTERFACE;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return MZN_PASS_PASSED_NO_NEIGHBOUR;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return MZN_PASS_PASSED_FORWARDING_OFF;
	default:
		return MZN_PASS_PASSED_NO_ROUTE;
	}
}

/* RFC 1624: what leaves and what comes in stand for the whole. */
static __always_inline __sum16 replace_words(__sum16 check, const __u32 *before, const __u32 *after, __u32 size)
{
	return fold(bpf_csum_diff((void *)before, size, (void *)after, size, (__u16)~check));
}

static __always_inline void replace_udp_checksum(struct udphdr *udp, const __u32 *before, const __u32 *after,
						 __u32 size)
{
	if (udp->check) /* zero: there is none, on either family */
		udp->check = replace_words(udp->check, before, after, size) ?: 0xffff;
}

static __always_inline void readdress_ipv4(const struct outer_headers *at, const __u32 *host)
{
	__u32 before[3], after[3];
	struct iphdr *ip = at->ip4;

	__builtin_memcpy(before, &ip->ttl, sizeof(before)); /* TTL, protocol and checksum; both addresses */
	ip->ttl = bounced_ttl(ip->ttl);
	ip->saddr = config.local.words[3];
	ip->daddr = host[3];
	__builtin_memcpy(after, &ip->ttl, sizeof(after));
	ip->check = replace_words(ip->check, before, after, sizeof(after));
	replace_udp_checksum(at->udp, before + 1, after + 1, sizeof(after) - sizeof(*after));
}

static __always_inline void readdress_ipv6(const struct outer_headers *at, const __u32 *host)
{
	__u32 before[8], after[8];
	struct ipv6hdr *ip = at->ip6;

	__builtin_memcpy(before, &ip->saddr, sizeof(before));
	for (int i = 0; i < 4; i++) {
		after[i] = config.local.words[i];
		after[4 + i] = host[i];
	}
	ip->hop_limit = bounced_ttl(ip->hop_limit);
	__builtin_memcpy(&ip->saddr, after, sizeof(after));
	replace_udp_checksum(at->udp, before, after, sizeof(after));
}

/* On a generic hook the checksum field may hold an unfinished sum, which cannot be told from a finished one. */
static __always_inline bool is_checksum_unsure(const struct udphdr *udp)
{
	__u32 zero = 0;
	struct mzn_switching *known = bpf_map_lookup_elem(&switching, &zero);

	return udp->check && (!known || known->flags & MZN_SWITCH_GENERIC_XDP);
}

static __always_inline int judge_underlay(struct xdp_md *ctx, struct packet *packet, struct outer_headers *at,
					  struct bpf_fib_lookup *hop)
{
	if (!find_outer(at, (void *)(long)ctx->data, (void *)(long)ctx->data_end) ||
	    !find_tunnel(&lifeline, &switch_device))
		return MZN_PASS_PASSED;
	packet->host = next_host(at, packet);
	if (!packet->host || (is_ipv6_underlay() ? at->ip6->hop_limit : at->ip4->ttl) <= 1)
		return MZN_PASS_PASSED;
	if (is_checksum_unsure(at->udp))
		return MZN_PASS_PASSED_CHECKSUM;
	return find_next_hop(ctx, packet->host, hop);
}

static __always_inline void send_on(const struct outer_headers *at, const __u32 *host,
				    const struct bpf_fib_lookup *hop)
{
	set_mac(at->eth->destination, hop->dmac);
	set_mac(at->eth->source, hop->smac);
	if (is_ipv6_underlay())
		readdress_ipv6(at, host);
	else
		readdress_ipv4(at, host);
}

SEC("xdp.frags")
int mzn_switch(struct xdp_md *ctx)
{
	struct packet packet;
	struct outer_headers at;
	struct bpf_fib_lookup hop;
	int verdict;

	begin(&packet, ctx->data_end - ctx->data); /* of a frame in several buffers, the first */
	verdict = judge_underlay(ctx, &packet, &at, &hop);
	if (verdict == MZN_PASS_BOUNCED)
		send_on(&at, packet.host, &hop);
	return conclude(ctx, MZN_PROGRAM_SWITCH, &packet, verdict);
}
