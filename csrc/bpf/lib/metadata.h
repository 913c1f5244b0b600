/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the kernel knows of a packet beside its bytes, as far as it is looked at here. */
#ifndef MZN_METADATA_H
#define MZN_METADATA_H

#include <linux/types.h>

/* <sys/socket.h> needs the C library's headers, which do not exist for this target. */
enum address_family {
	FAMILY_NONE = 0, /* the socket of a tap */
	FAMILY_IPV4 = 2,
	FAMILY_IPV6 = 10,
	FAMILY_PACKET = 17,
	FAMILY_XDP = 44,
};

enum { RAW_SOCKET = 3 };

enum origin_kind {
	ORIGIN_NONE,
	ORIGIN_DEVICE, /* that the packet was routed through */
	ORIGIN_SOCKET, /* of a packet without a route */
};

struct origin {
	enum origin_kind kind;
	__u32 ifindex; /* device */
	__u64 netns_cookie;
	__u16 family; /* socket */
};

/* A checksum that a device shall complete; offsets in the frame. */
struct deferred_checksum {
	__u32 start; /* of what it covers */
	__u32 place; /* where it is written */
};

#endif
