/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is known of one packet. It belongs to the function that the kernel calls, every stage adds what it finds, and at
 * the end, where the verdict is counted, all of it is still there.
 */
#ifndef MZN_PACKET_H
#define MZN_PACKET_H

#include <stddef.h>

#include "address.h"

enum { NO_PROTOCOL = 256 }; /* no number that a header could hold */

/* The source of a packet, if it is no first address of its sender. */
enum further {
	FURTHER_NOT,
	FURTHER_OWN, /* of the sender's further addresses */
	FURTHER_ON_LINK, /* the same, and the destination is in its on-link prefix */
};

/*
 * What the bytes say. Functions that the verifier judges by themselves get this part of a packet and no more: a pointer
 * that they could reach would be none any more after the call.
 */
struct frame {
	__be16 ethertype;
	__u8 hop_limit;
	bool fragment;
	__u16 protocol; /* upper layer; NO_PROTOCOL in all but the first fragment */
	__u16 payload; /* offset of the upper layer's header: behind outer headers that are still there */
	__u32 end; /* of the packet, counted in the same way; what follows is a trailer */
	struct mzn_mac destination_mac;
	struct mzn_mac source_mac;
	struct mzn_ip source;
	struct mzn_ip destination;
};

struct packet {
	struct frame frame; /* bounced and local packets have none: they are not parsed */
	__u32 bytes; /* that it came with */
	__u32 vni;
	struct mzn_sender *sender; /* whose it is, proved; NULL before, and of packets from outside */
	const struct mzn_endpoint *to; /* the destination's entry; NULL if it has none */
	const __u32 *host; /* to send it to */
	__u32 further; /* enum further */
	__u32 tunnel; /* shortcut: index of the device to hand over to */
	__u8 hop_limit; /* to leave the agent with */
};

enum origin_kind {
	ORIGIN_NONE,
	ORIGIN_DEVICE, /* that the packet was routed through */
	ORIGIN_SOCKET, /* of a packet without a route */
};

/* Where the kernel has the packet from. */
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

/* Of a packet of which nothing else is known yet. What is not set here is set before it is read. */
static __always_inline void begin(struct packet *packet, __u32 bytes)
{
	packet->bytes = bytes;
	packet->vni = 0;
	packet->sender = NULL;
	packet->to = NULL;
}

static __always_inline bool is_multicast(const struct frame *frame)
{
	return is_multicast_mac(&frame->destination_mac) || is_multicast_ip(&frame->destination);
}

#endif
