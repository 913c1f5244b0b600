/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From bytes to a frame. Nothing is written here, and nothing is written by direct access anywhere: a
 * program with one direct write gets a prologue that copies the head of every cloned packet, and every
 * TCP packet is a clone of the one in the retransmission queue. Changes go through bpf_skb_store_bytes.
 */
#ifndef MZN_PARSE_H
#define MZN_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "packet.h"

#define ETHERTYPE_IPV4 bpf_htons(ETH_P_IP)
#define ETHERTYPE_IPV6 bpf_htons(ETH_P_IPV6)
#define ETHERTYPE_ARP bpf_htons(ETH_P_ARP)

enum {
	HEADERS = sizeof(struct ethhdr) + sizeof(struct ipv6hdr), /* the longest of the headers read here */
	EXTENSIONS = 6, /* most IPv6 extension headers walked ... */
	EXTENSION_BYTES = 128, /* ... and most bytes of them */
};

/* The start of an IPv6 extension header; the last member is that of a fragment header. */
struct extension {
	__u8 next;
	__u8 length;
	__be16 fragment;
};

/* As struct ethhdr, which is packed: clang would read that byte by byte. */
struct ethernet {
	__u16 destination[3], source[3];
	__be16 protocol;
};

/*
 * Makes what is judged linear: frames of a tap may have no more than 14 bytes there, and the pages with the rest may be
 * shared with the sender, who could go on writing (rings of packet sockets, zero copy of virtual machines).
 */
static __always_inline int pull(struct __sk_buff *skb, __u32 bytes)
{
	if (bytes > skb->len)
		bytes = skb->len;
	if ((__u64)skb->data + bytes <= skb->data_end)
		return 0;
	return bpf_skb_pull_data(skb, bytes) ? MZN_DROP_UNREADABLE : 0;
}

/* `start`: of the frame in the packet, here and below. It is zero but for a frame that is still in its tunnel. */
static __always_inline int parse_ipv4(struct __sk_buff *skb, struct frame *frame, __u32 start, const void *at,
				      const void *end)
{
	const struct iphdr *ip = at;
	__u32 total, header;

	if ((void *)(ip + 1) > end)
		return MZN_DROP_TRUNCATED;
	total = bpf_ntohs(ip->tot_len);
	header = ip->ihl * 4;
	/* A total of zero is "BIG TCP", which tunnels of this kind do not carry. */
	if (ip->version != 4 || header < sizeof(*ip) || total < header || total > skb->len - start - ETH_HLEN)
		return MZN_DROP_BAD_IPV4;
	frame->hop_limit = ip->ttl;
	frame->fragment = ip->frag_off & bpf_htons(0x3fff); /* more to come, or an offset */
	frame->protocol = ip->frag_off & bpf_htons(0x1fff) ? NO_PROTOCOL : ip->protocol;
	frame->payload = start + ETH_HLEN + header;
	frame->end = start + ETH_HLEN + total;
	set_ipv4(&frame->source, ip->saddr);
	set_ipv4(&frame->destination, ip->daddr);
	return 0;
}

static __always_inline __u32 extension_size(__u16 protocol, const struct extension *extension)
{
	if (protocol == IPPROTO_FRAGMENT)
		return 8;
	return protocol == IPPROTO_AH ? (extension->length + 2) * 4 : (extension->length + 1) * 8;
}

static __always_inline bool is_extension(__u16 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS ||
	       protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_AH;
}

/*
 * To the upper layer's header: neighbour discovery must not hide behind extension headers. A function that is not
 * static is verified once, whoever calls it; a null check is the price.
 */
__noinline int skip_extensions(struct __sk_buff *skb, struct frame *frame)
{
	struct extension extension;

	if (!frame)
		return MZN_DROP_UNREADABLE;
#pragma unroll /* 6.1 refuses the back edge that clang makes of this loop */
	for (int i = 0; i < EXTENSIONS; i++) {
		if (!is_extension(frame->protocol))
			return 0;
		if (frame->payload > HEADERS + EXTENSION_BYTES)
			return MZN_DROP_EXTENSION_HEADERS;
		/* RFC 7112: all headers are in the first fragment, or nobody can judge the packet. */
		if (frame->payload + sizeof(extension) > frame->end)
			return MZN_DROP_TRUNCATED;
		if (pull(skb, frame->payload + sizeof(extension)) ||
		    bpf_skb_load_bytes(skb, frame->payload, &extension, sizeof(extension)))
			return MZN_DROP_UNREADABLE;
		frame->payload += extension_size(frame->protocol, &extension);
		if (frame->protocol == IPPROTO_FRAGMENT)
			frame->fragment = true;
		if (frame->protocol == IPPROTO_FRAGMENT && extension.fragment & bpf_htons(0xfff8))
			frame->protocol = NO_PROTOCOL;
		else
			frame->protocol = extension.next;
	}
	return is_extension(frame->protocol) ? MZN_DROP_EXTENSION_HEADERS : 0;
}

/* The fixed header alone: extension headers may follow. */
static __always_inline int parse_ipv6(struct __sk_buff *skb, struct frame *frame, __u32 start, const void *at,
				      const void *end)
{
	const struct ipv6hdr *ip = at;

	if ((void *)(ip + 1) > end)
		return MZN_DROP_TRUNCATED;
	if (ip->version != 6 || bpf_ntohs(ip->payload_len) > skb->len - start - ETH_HLEN - sizeof(*ip))
		return MZN_DROP_BAD_IPV6;
	/* A payload of zero with more behind it than padding is "BIG TCP" again. */
	if (!ip->payload_len && skb->len - start > ETH_ZLEN)
		return MZN_DROP_BAD_IPV6;
	frame->hop_limit = ip->hop_limit;
	frame->fragment = false;
	frame->protocol = ip->nexthdr;
	frame->payload = start + HEADERS;
	frame->end = start + HEADERS + bpf_ntohs(ip->payload_len);
	set_ipv6(&frame->source, &ip->saddr);
	set_ipv6(&frame->destination, &ip->daddr);
	return 0;
}

/* Zero, or the reason why a frame that is not IPv4 cannot be understood. ARP bodies are left to arp.h. */
__noinline int parse_other(struct __sk_buff *skb, struct frame *frame)
{
	const struct ethernet *eth = (void *)(long)skb->data;
	const void *end = (void *)(long)skb->data_end;
	int refused;

	if (!frame)
		return MZN_DROP_UNREADABLE;
	if (frame->ethertype != ETHERTYPE_IPV6)
		return frame->ethertype == ETHERTYPE_ARP ? 0 : MZN_DROP_UNKNOWN_ETHERTYPE;
	refused = parse_ipv6(skb, frame, 0, eth + 1, end);
	return !refused && is_extension(frame->protocol) ? skip_extensions(skb, frame) : refused;
}

/* The kernel keeps a received tag beside the frame, a raw sender's tag stays in the bytes. */
static __always_inline bool is_tagged(struct __sk_buff *skb, __be16 ethertype)
{
	return skb->vlan_present || ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD) ||
	       ethertype == bpf_htons(ETH_P_QINQ1);
}

/* Zero, or the reason why the frame cannot be understood. Most are IPv4: that takes no call. */
static __always_inline int parse(struct __sk_buff *skb, struct frame *frame)
{
	const struct ethernet *eth = (void *)(long)skb->data;
	const void *end = (void *)(long)skb->data_end;
	int refused;

	if ((void *)(eth + 1) > end)
		return MZN_DROP_TRUNCATED;
	set_mac(&frame->destination_mac, eth->destination);
	set_mac(&frame->source_mac, eth->source);
	frame->ethertype = eth->protocol;
	if (is_tagged(skb, frame->ethertype))
		return MZN_DROP_VLAN_TAGGED;
	if (frame->ethertype == ETHERTYPE_IPV4)
		return parse_ipv4(skb, frame, 0, eth + 1, end);
	refused = parse_other(skb, frame);
	/* Whatever is refused is dropped: of a number from a function that it judges by itself the verifier knows nothing. */
	return refused && refused < MZN_LIMIT_FIRST_DROP ? MZN_DROP_UNREADABLE : refused;
}

static __always_inline int understand(struct __sk_buff *skb, struct packet *packet)
{
	int refused;

	packet->frame = (struct frame){}; /* here, since not every packet is parsed */
	refused = pull(skb, HEADERS);
	return refused ? refused : parse(skb, &packet->frame);
}

#endif
