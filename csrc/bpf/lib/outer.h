/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The tunnel key: what the tunnel device puts into the outer headers, and what it found there. */
#ifndef MZN_OUTER_H
#define MZN_OUTER_H

#include "address.h"
#include "maps.h"

enum {
	/* Written into every key: Geneve sends a zero TTL as zero, VXLAN as 64. */
	OUTER_TTL = 64,
	BOUNCED_TTL = 8, /* the most of a frame that is sent on */
	/* tunnel_flags as bpf_skb_get_tunnel_key gives them (6.1): Geneve's control and critical bits. */
	OUTER_OAM = bpf_htons(0x0200),
	OUTER_CRITICAL = bpf_htons(0x0400),
	OUTER_OPTIONS = bpf_htons(0x0800),
	GENEVE_OPTION_BYTES = 252, /* the most that a header can hold */
	GENEVE_OPTION_CRITICAL = 0x80,
};

struct geneve_option {
	__be16 class;
	__u8 type;
	__u8 length; /* of the data, in units of four bytes, in the low five bits */
};

struct outer {
	__u32 vni;
	__u8 ttl;
	__be16 flags;
	struct mzn_ip remote; /* egress: destination; ingress: source */
	struct mzn_ip local;
};

static __always_inline bool is_ipv6_underlay(void)
{
	return config.local.family == 6;
}

/*
 * Towards `host`. No outer checksum and no "don't fragment", whatever the family; TOS zero, so that a tenant
 * does not choose the underlay's class of service (the kernel copies congestion bits by itself).
 */
static __always_inline int set_outer(struct __sk_buff *skb, __u32 vni, const __u32 *host, __u8 ttl)
{
	struct bpf_tunnel_key key = { .tunnel_id = vni, .tunnel_ttl = ttl };
	__u64 flags = BPF_F_ZERO_CSUM_TX;

	if (is_ipv6_underlay()) {
		flags |= BPF_F_TUNINFO_IPV6;
		for (int i = 0; i < 4; i++) {
			key.remote_ipv6[i] = host[i];
			key.local_ipv6[i] = config.local.words[i];
		}
	} else {
		/* The helper takes IPv4, and only IPv4, in host order. */
		key.remote_ipv4 = bpf_ntohl(host[3]);
		key.local_ipv4 = bpf_ntohl(config.local.words[3]);
	}
	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags) ? MZN_DROP_TUNNEL_KEY_REFUSED : 0;
}

/* False if the frame did not come out of the tunnel, or came over the other address family. */
static __always_inline bool get_outer(struct __sk_buff *skb, struct outer *outer)
{
	struct bpf_tunnel_key key; /* the helper writes all of it */
	__u64 flags = BPF_F_TUNINFO_FLAGS | (is_ipv6_underlay() ? BPF_F_TUNINFO_IPV6 : 0);

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), flags))
		return false;
	outer->vni = key.tunnel_id;
	outer->flags = key.tunnel_flags;
	outer->ttl = key.tunnel_ttl;
	if (is_ipv6_underlay()) {
		set_ipv6(&outer->remote, (struct in6_addr *)key.remote_ipv6);
		set_ipv6(&outer->local, (struct in6_addr *)key.local_ipv6);
	} else {
		set_ipv4(&outer->remote, bpf_htonl(key.remote_ipv4));
		set_ipv4(&outer->local, bpf_htonl(key.local_ipv4));
	}
	return true;
}

/*
 * Is there an option that a receiver must understand (RFC 8926, 3.5)? None is understood here. The kernel looks at
 * the header's own critical bit alone; a sender that forgets it is refused too, and so is one whose lengths lie.
 */
__noinline int has_critical_option(struct __sk_buff *skb)
{
	__u8 options[GENEVE_OPTION_BYTES];
	struct geneve_option *option;
	__u32 at = 0;
	int size = bpf_skb_get_tunnel_opt(skb, options, sizeof(options));

	for (int i = 0; i < GENEVE_OPTION_BYTES / 4; i++) {
		if ((int)at >= size || at > sizeof(options) - sizeof(*option))
			break;
		option = (void *)(options + at);
		if (option->type & GENEVE_OPTION_CRITICAL)
			return true;
		at += sizeof(*option) + (option->length & 0x1f) * 4;
	}
	return (int)at != size;
}

/* Of a frame that is sent on: hosts that disagree about its place shall not have it for long. */
static __always_inline __u8 bounced_ttl(__u8 ttl)
{
	return ttl > BOUNCED_TTL ? BOUNCED_TTL : ttl - 1;
}

/* An underlay address whose family is the tunnel's, as in `endpoints` and `networks`. */
static __always_inline bool is_own_host(const __u32 *words)
{
	return same_words(words, config.local.words);
}

static __always_inline bool is_peer(const struct mzn_ip *ip)
{
	struct mzn_peer_key key = { .prefix_length = 8 * sizeof(*ip), .ip = *ip };

	return bpf_map_lookup_elem(&peers, &key) != NULL;
}

#endif
