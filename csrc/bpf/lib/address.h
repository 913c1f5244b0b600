/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses: how they are set and compared, and what kind of address one is. */
#ifndef MZN_ADDRESS_H
#define MZN_ADDRESS_H

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/in6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <mizarnet/abi.h>

/* <sys/socket.h> needs the C library's headers, which do not exist for this target. */
enum address_family {
	FAMILY_NONE = 0, /* the socket of a tap */
	FAMILY_IPV4 = 2,
	FAMILY_IPV6 = 10,
	FAMILY_PACKET = 17,
	FAMILY_XDP = 44,
};

/* A third of a MAC, whatever type that has. */
typedef __u16 __attribute__((may_alias)) mac_part;

static __always_inline void set_ipv4(struct mzn_ip *ip, __be32 address)
{
	ip->family = 4;
	ip->words[0] = 0;
	ip->words[1] = 0;
	ip->words[2] = bpf_htonl(0xffff);
	ip->words[3] = address;
}

static __always_inline void set_ipv6(struct mzn_ip *ip, const struct in6_addr *address)
{
	ip->family = 6;
	__builtin_memcpy(ip->words, address, sizeof(ip->words));
}

/* Both at even addresses, here and below: clang would copy a packed structure byte by byte. */
static __always_inline void set_mac(void *mac, const volatile void *bytes)
{
	const volatile mac_part *from = bytes;
	mac_part *to = mac;

	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
}

static __always_inline bool same_words(const volatile __u32 *a, const volatile __u32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

/* Of IPv4 addresses the last words alone can differ. */
static __always_inline bool same_ip(const struct mzn_ip *a, const struct mzn_ip *b)
{
	return a->family == b->family && a->words[3] == b->words[3] &&
	       (a->family == 4 ||
		(a->words[0] == b->words[0] && a->words[1] == b->words[1] && a->words[2] == b->words[2]));
}

static __always_inline bool same_mac(const volatile void *one, const volatile void *other)
{
	const volatile mac_part *a = one, *b = other;

	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

static __always_inline bool is_unspecified(const struct mzn_ip *ip)
{
	return ip->family == 4 ? !ip->words[3] : !(ip->words[0] | ip->words[1] | ip->words[2] | ip->words[3]);
}

static __always_inline bool is_multicast_ip(const struct mzn_ip *ip)
{
	__u32 first = ip->words[0], last = ip->words[3];

	if (ip->family == 6)
		return (first & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
	return (last & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || last == 0xffffffff;
}

static __always_inline bool is_multicast_mac(const struct mzn_mac *mac)
{
	return mac->bytes[0] & 1;
}

/* The link-local address that a stack makes of its MAC by default (RFC 4291, appendix A). */
static __always_inline bool is_link_local_of(const struct mzn_mac *mac, const struct mzn_ip *ip)
{
	const __u8 *own = mac->bytes;

	return ip->family == 6 && ip->words[0] == bpf_htonl(0xfe800000) && !ip->words[1] &&
	       ip->words[2] == bpf_htonl((own[0] ^ 2) << 24 | own[1] << 16 | own[2] << 8 | 0xff) &&
	       ip->words[3] == bpf_htonl(0xfe000000 | own[3] << 16 | own[4] << 8 | own[5]);
}

/* The first of a family? Further ones have entries of their own: owns() in lookup.h. */
static __always_inline bool owns_first(const struct mzn_sender *sender, const struct mzn_ip *ip)
{
	for (int i = 0; i < MZN_LIMIT_ADDRESSES; i++)
		if (same_ip(&sender->addresses[i].ip, ip))
			return true;
	return false;
}

/* Are both addresses in the prefix? Only then is a packet between them not routed. */
static __always_inline bool on_link(const struct mzn_ip *own, __u32 prefix_length, const struct mzn_ip *ip)
{
	__u32 bits = prefix_length;

	if (own->family != ip->family)
		return false;
	/* Of IPv4 addresses the last words alone can differ. The mask is computed, not chosen: one way for the verifier. */
	if (ip->family == 4)
		return !(bpf_ntohl(own->words[3] ^ ip->words[3]) & (__u32)(0xffffffff00000000 >> (bits & 63)));
	for (int i = 0; i < 4; i++) {
		__u32 differ = bpf_ntohl(own->words[i] ^ ip->words[i]);

		if (bits < 32)
			return !bits || !(differ >> (32 - bits));
		if (differ)
			return false;
		bits -= 32;
	}
	return true;
}

#endif
