// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The shortcut on the way in: on the ingress of the underlay it takes plain tunnel packets for endpoints of this host out
 * of their tunnel where they stand, makes the guard's checks, and hands them over to the ingress of the tunnel. What is
 * not plain it leaves to the kernel, as it came: the tunnel device decapsulates, and the guard judges.
 */
#include "lib/kernel.h"
#include "lib/received.h"
#include "lib/underlay.h"
#include "lib/verdict.h"

enum {
	/* Bits of BPF_F_ADJ_ROOM_* that older headers do not have (6.3). */
	DECAP_IPV4 = 1 << 7,
	DECAP_IPV6 = 1 << 8,
	ECN_ECT_1 = 1, /* set in CE, too: for both the kernel changes the inner packet */
	FLOW_ECT_1 = ECN_ECT_1 << 4, /* the same bit in the first byte of an IPv6 flow label */
};

/* Bytes in front of the inner frame: without options all of it is fixed. */
static __always_inline __u32 outer_bytes(void)
{
	return ETH_HLEN + (is_ipv6_underlay() ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) +
	       sizeof(struct udphdr) + TUNNEL_HEADER;
}

/* Of the host's own traffic nothing is moved: only UDP can be the tunnel's. */
static __always_inline bool make_readable(struct __sk_buff *skb)
{
	const __u32 bytes = outer_bytes() + HEADERS;
	const __u32 at = ETH_HLEN + (is_ipv6_underlay() ? offsetof(struct ipv6hdr, nexthdr) :
							  offsetof(struct iphdr, protocol));
	__u8 protocol;

	if ((__u64)skb->data + bytes <= skb->data_end)
		return true;
	if (bpf_skb_load_bytes(skb, at, &protocol, sizeof(protocol)) || protocol != IPPROTO_UDP)
		return false;
	return !pull(skb, bytes);
}

static __always_inline bool is_sum_right(const struct iphdr *ip)
{
	const __u16 *words = (const void *)ip;
	__u32 sum = 0;

#pragma unroll
	for (__u32 i = 0; i < sizeof(*ip) / sizeof(*words); i++)
		sum += words[i];
	return !fold(sum);
}

/* What the kernel would check, and would do on its way to the tunnel device: nothing, or the packet is not plain. */
static __always_inline bool is_outer_plain(const struct outer_headers *at, __u32 length)
{
	__u32 rest = length - ETH_HLEN;

	if (is_ipv6_underlay()) {
		rest -= sizeof(*at->ip6);
		if (at->ip6->payload_len != bpf_htons(rest) || rest > 0xffff || at->ip6->flow_lbl[0] & FLOW_ECT_1)
			return false;
	} else {
		if (at->ip4->tot_len != bpf_htons(rest) || rest > 0xffff || at->ip4->tos & ECN_ECT_1 ||
		    !is_sum_right(at->ip4))
			return false;
		rest -= sizeof(*at->ip4);
	}
	return at->udp->len == bpf_htons(rest) && !at->udp->check && at->inner == at->tunnel + TUNNEL_HEADER;
}

/* Its own address, and those that no host has, the kernel refuses as a source: it shall say so, and count it. */
static __always_inline bool is_source_plain(const struct outer_headers *at)
{
	const __u32 *words;
	__u32 first;

	if (is_ipv6_underlay()) {
		words = at->ip6->saddr.in6_u.u6_addr32;
		return words[0] | words[1] && (words[0] & bpf_htonl(0xff000000)) != bpf_htonl(0xff000000) &&
		       !is_own_host(words);
	}
	first = bpf_ntohl(at->ip4->saddr) >> 24;
	return first && first != 127 && first < 224 && at->ip4->saddr != config.local.words[3];
}

static __always_inline bool is_inner_tcp(const struct outer_headers *at)
{
	const struct ethernet *eth = at->inner;
	const struct iphdr *ip4 = (const void *)(eth + 1);
	const struct ipv6hdr *ip6 = (const void *)(eth + 1);

	if (eth->protocol == ETHERTYPE_IPV4)
		return ip4->protocol == IPPROTO_TCP;
	return (void *)(ip6 + 1) <= at->end && ip6->nexthdr == IPPROTO_TCP;
}

/*
 * In a packet that is still to be segmented the kernel keeps the tunnel that the sender put it into, which no helper
 * takes away. The endpoint's own stack does not mind for TCP. Whoever sends it on may: a router, the kernel of a VM.
 */
static __always_inline bool may_stay_merged(const struct outer_headers *at, const struct mzn_endpoint *to)
{
	return is_inner_tcp(at) && !(to->flags & (MZN_FLAG_FORWARDING | MZN_FLAG_TAP));
}

static __always_inline void set_outer_headers(struct outer *outer, const struct outer_headers *at, __u32 vni)
{
	*outer = (struct outer){ .vni = vni };
	outer->ttl = is_ipv6_underlay() ? at->ip6->hop_limit : at->ip4->ttl;
	set_source(&outer->remote, at);
	outer->local.family = config.local.family;
	for (int i = 0; i < 4; i++)
		outer->local.words[i] = config.local.words[i];
}

/* A plain packet of the tunnel, for an endpoint of this host? Nothing of it is changed yet. */
static __always_inline bool is_plain(struct __sk_buff *skb, struct packet *packet, struct outer *outer,
				     struct ethernet *inner)
{
	struct outer_headers at;
	const __u32 *tunnel;

	if (!is_to_host(skb) || skb->vlan_present || !make_readable(skb))
		return false;
	barrier(); /* or clang keeps pointers of the packet in halves of registers, which the verifier takes for numbers */
	if (!find_outer(&at, (void *)(long)skb->data, (void *)(long)skb->data_end) ||
	    !is_outer_plain(&at, skb->len) || !is_source_plain(&at) || !parse_inner(&at, packet))
		return false;
	*inner = *(struct ethernet *)at.inner;
	if (same_mac(inner->source, &config.tunnel_mac)) /* the tunnel device takes that for its own, come back */
		return false;
	tunnel = find_tunnel(&landing);
	if (!tunnel)
		return false;
	packet->tunnel = *tunnel;
	packet->found = find_endpoint(packet->vni, &packet->frame.destination);
	if (!packet->found || packet->found->place != MZN_PLACE_LOCAL)
		return false;
	set_outer_headers(outer, &at, packet->vni);
	return !segment_size(skb) || may_stay_merged(&at, packet->found);
}

/*
 * From here on the packet is the frame, as on the tunnel's ingress. It came without an outer checksum, so one that a
 * device has found right is that of the inner packet, and the sum over a packet that is left is kept by the kernel.
 */
static __always_inline bool take_out(struct __sk_buff *skb, const struct ethernet *inner)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;

	flags |= inner->protocol == ETHERTYPE_IPV6 ? DECAP_IPV6 : DECAP_IPV4;
	if (bpf_skb_adjust_room(skb, -(__s32)outer_bytes(), BPF_ADJ_ROOM_MAC, flags))
		return false; /* unchanged, so it can still go the kernel's way */
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	return true;
}

static __always_inline int judge_taken_out(struct __sk_buff *skb, struct packet *packet, struct outer *outer,
					   const struct ethernet *inner)
{
	packet->bytes = skb->len;
	if (bpf_skb_store_bytes(skb, 0, inner, sizeof(*inner), 0))
		return MZN_DROP_UNREADABLE;
	return carry_out_received(skb, packet, outer, judge_received(skb, packet, outer));
}

SEC("tc")
int mzn_shortcut(struct __sk_buff *skb)
{
	int verdict = MZN_PASS_PASSED;
	struct ethernet inner;
	struct packet packet;
	struct outer outer;

	begin(&packet, skb->len);
	if (is_plain(skb, &packet, &outer, &inner) && take_out(skb, &inner))
		verdict = judge_taken_out(skb, &packet, &outer, &inner);
	return conclude(skb, MZN_PROGRAM_SHORTCUT, &packet, verdict);
}
