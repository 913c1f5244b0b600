// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The shortcut on the way in: on the ingress of the underlay it takes plain tunnel packets for endpoints of this host out
 * of their tunnel, if they pass the guard's checks, and hands them over to the ingress of the tunnel. It refuses none:
 * all others it leaves to the kernel as they came, whose tunnel device decapsulates, and to the guard.
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

/* The inner frame, where it stands. With extension headers it is the kernel's, as an outer header with options is. */
static __always_inline bool understand_inner(struct __sk_buff *skb, const struct outer_headers *at,
					     struct frame *frame)
{
	const struct ethernet *eth = at->inner;

	if ((void *)(eth + 1) > at->end)
		return false;
	set_mac(&frame->destination_mac, eth->destination);
	set_mac(&frame->source_mac, eth->source);
	frame->ethertype = eth->protocol;
	if (frame->ethertype == ETHERTYPE_IPV4)
		return !parse_ipv4(skb, frame, outer_bytes(), eth + 1, at->end);
	return frame->ethertype == ETHERTYPE_IPV6 && !parse_ipv6(skb, frame, outer_bytes(), eth + 1, at->end) &&
	       !is_extension(frame->protocol);
}

/*
 * In a packet that is still to be segmented the kernel keeps the tunnel that the sender put it into, which no helper
 * takes away. The endpoint's own stack does not mind for TCP. Whoever sends it on may: a router, the kernel of a VM.
 */
static __always_inline bool may_stay_merged(const struct packet *packet)
{
	return packet->frame.protocol == IPPROTO_TCP && !(packet->to->flags & (MZN_FLAG_FORWARDING | MZN_FLAG_TAP));
}

/* A plain packet of the tunnel? What it says is read, and nothing of it changed. */
static __always_inline bool is_plain(struct __sk_buff *skb, struct packet *packet, struct mzn_ip *host)
{
	struct outer_headers at;

	if (!is_to_host(skb) || skb->vlan_present || !make_readable(skb))
		return false;
	barrier(); /* or clang keeps pointers of the packet in halves of registers, which the verifier takes for numbers */
	if (!find_outer(&at, (void *)(long)skb->data, (void *)(long)skb->data_end) ||
	    !is_outer_plain(&at, skb->len) || !is_source_plain(&at) || !understand_inner(skb, &at, &packet->frame))
		return false;
	packet->vni = vni_of(&at);
	set_source(host, &at);
	/* Its own MAC the tunnel's device takes for a frame of its own, come back. */
	return !same_mac(&packet->frame.source_mac, &config.tunnel_mac);
}

/* For an endpoint of this host, and nothing that the guard would refuse? */
static __always_inline bool is_welcome(struct __sk_buff *skb, struct packet *packet, struct mzn_ip *host)
{
	const __u32 *tunnel = find_tunnel(&landing, &shortcut_device);

	if (!tunnel)
		return false;
	packet->tunnel = *tunnel;
	packet->to = find_endpoint(packet->vni, &packet->frame.destination);
	if (!packet->to || packet->to->place != MZN_PLACE_LOCAL)
		return false;
	if (segment_size(skb) && !may_stay_merged(packet))
		return false;
	return is_peer(host) && !check_received(skb, packet, host);
}

/*
 * From here on the packet is the frame, as on the tunnel's ingress. It came without an outer checksum, so one that a
 * device has found right is that of the inner packet, and the sum over a packet that is left is kept by the kernel.
 */
static __always_inline bool take_out(struct __sk_buff *skb, const struct frame *frame)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;

	flags |= frame->ethertype == ETHERTYPE_IPV6 ? DECAP_IPV6 : DECAP_IPV4;
	if (bpf_skb_adjust_room(skb, -(__s32)outer_bytes(), BPF_ADJ_ROOM_MAC, flags))
		return false; /* unchanged, so it can still go the kernel's way */
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	return true;
}

SEC("tc")
int mzn_shortcut(struct __sk_buff *skb)
{
	int verdict = MZN_PASS_PASSED;
	struct packet packet;
	struct mzn_ip host;

	begin(&packet, skb->len);
	if (is_plain(skb, &packet, &host) && is_welcome(skb, &packet, &host) && take_out(skb, &packet.frame)) {
		packet.bytes = skb->len;
		verdict = deliver(skb, &packet);
	}
	return conclude(skb, MZN_PROGRAM_SHORTCUT, &packet, verdict);
}
