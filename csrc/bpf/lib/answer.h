/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* An answer in place of the packet that it is about: the room for it, and the way back. */
#ifndef MZN_ANSWER_H
#define MZN_ANSWER_H

#include "lookup.h"
#include "parse.h"

/*
 * What the sender left to the device, segments to cut and a checksum to complete, must be forgotten, or the checksum
 * would be written into the answer. The kernel forgets the segments when the packet is resized, and the checksum when
 * the beginning of what it covers is taken away. So the packet is cut behind any header that could have a checksum,
 * which the kernel refuses if one ends later, and then all that is left is taken away.
 */
static __always_inline int make_room(struct __sk_buff *skb, const struct frame *frame, __u32 length,
				     __u32 ip_header)
{
	const __u32 kept = frame->payload + ETH_HLEN + ip_header;

	return bpf_skb_change_tail(skb, kept, 0) || bpf_skb_change_tail(skb, ETH_HLEN + kept + ip_header, 0) ||
	       bpf_skb_adjust_room(skb, -(__s32)kept, BPF_ADJ_ROOM_MAC, 0) || bpf_skb_change_tail(skb, length, 0);
}

/* The Ethernet addresses of a frame. */
struct macs {
	__u16 destination[3], source[3];
};

static __always_inline void to_sender(struct macs *macs, const struct frame *frame)
{
	set_mac(macs->destination, &frame->source_mac);
	set_virtual_mac(macs->source);
}

#endif
