/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP and ICMPv6. <linux/icmp.h> needs the C library's headers, which do not exist for this target. */
#ifndef MZN_ICMP_H
#define MZN_ICMP_H

#include <linux/types.h>

enum {
	ECHO_REPLY_IPV4 = 0,
	UNREACHABLE_IPV4 = 3,
	FRAGMENTATION_NEEDED_IPV4 = 4, /* code of it */
	ECHO_REQUEST_IPV4 = 8,
	TIME_EXCEEDED_IPV4 = 11,
	TIMESTAMP_IPV4 = 13,
	TOO_BIG_IPV6 = 2,
	TIME_EXCEEDED_IPV6 = 3,
	ECHO_REQUEST_IPV6 = 128,
	ECHO_REPLY_IPV6 = 129,
	ND_ROUTER_SOLICITATION = 133,
	ND_SOLICITATION = 135,
	ND_ADVERTISEMENT = 136,
	ND_LAST = 137,
};

/* The first words of every message. */
struct icmp {
	__u8 type, code;
	__sum16 checksum;
	__be32 rest;
};

#endif
