/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The Internet checksum (RFC 1071) of headers that the programs write themselves. */
#ifndef MZN_CHECKSUM_H
#define MZN_CHECKSUM_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* Before the upper layer's data in an IPv6 checksum (RFC 8200, 8.1). */
struct pseudo_header {
	__u32 source[4];
	__u32 destination[4];
	__be32 length;
	__be32 protocol;
};

static __always_inline __sum16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~sum;
}

/* `size` is constant and a multiple of four. */
static __always_inline __u32 sum_of(const void *data, __u32 size)
{
	return bpf_csum_diff(NULL, 0, (void *)data, size, 0);
}

#endif
