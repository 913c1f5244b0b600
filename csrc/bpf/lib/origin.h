/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who sent this frame? The source MAC is the sender's word. The proof is the device the packet was routed
 * through: MACVLAN and tunnel keep the route on the packet, every way between namespaces drops it, and only
 * the sender's own stack can attach one. The socket alone is no proof: a cold echo reply carries the initial
 * namespace's, a SYN cookie none, a reflected frame the victim's (docs/design.md has the table).
 */
#ifndef MZN_ORIGIN_H
#define MZN_ORIGIN_H

#include "kernel.h"
#include "parse.h"

#ifdef MZN_NO_ROUTE_IDENTITY

/* Kernels before 6.2 cannot read the route: source MAC and source address have to do. */
static __always_inline int identify(struct __sk_buff *skb, const struct frame *frame,
				    const struct mzn_sender *sender)
{
	(void)skb, (void)frame, (void)sender;
	return 0;
}

static __always_inline bool has_no_origin(struct __sk_buff *skb)
{
	(void)skb;
	return true;
}

#else

static __always_inline int identify_device(const struct origin *origin, const struct mzn_sender *sender)
{
	if (origin->netns_cookie != sender->netns_cookie)
		return MZN_DROP_FOREIGN_DEVICE;
	/* Between its creation and its record's completion the index of the device is not known. */
	return sender->ifindex && origin->ifindex != sender->ifindex ? MZN_DROP_FOREIGN_DEVICE : 0;
}

static __always_inline int identify_socket(const struct origin *origin, const struct mzn_sender *sender)
{
	if (origin->family != FAMILY_PACKET && origin->family != FAMILY_XDP && origin->family != FAMILY_NONE)
		return MZN_DROP_REFLECTED;
	return origin->netns_cookie != sender->netns_cookie ? MZN_DROP_FOREIGN_SOCKET : 0;
}

static __always_inline int identify(struct __sk_buff *skb, const struct frame *frame,
				    const struct mzn_sender *sender)
{
	struct origin origin = {};

	read_origin(skb, &origin);
	if (origin.kind == ORIGIN_DEVICE)
		return identify_device(&origin, sender);
	if (origin.kind == ORIGIN_SOCKET)
		return identify_socket(&origin, sender);
	return frame->ethertype == ETHERTYPE_ARP ? 0 : MZN_DROP_NO_ORIGIN;
}

static __always_inline bool has_no_origin(struct __sk_buff *skb)
{
	struct origin origin = {};

	read_origin(skb, &origin);
	return origin.kind == ORIGIN_NONE;
}

#endif

#endif
