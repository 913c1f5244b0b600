/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A frame that the guard sends back into the tunnel comes by the agent. It is known by the guard's secrets: a mark, as
 * on all frames between the two, and a token in the packet's control block, which the redirect keeps. A tenant with
 * CAP_NET_ADMIN can make all the rest that is checked, and try marks, but nothing writes what it likes into that block.
 */
#ifndef MZN_BOUNCE_H
#define MZN_BOUNCE_H

#include "origin.h"
#include "outer.h"

static __always_inline void sign_bounced(struct __sk_buff *skb)
{
	skb->mark = config.mark_bounced;
	skb->cb[0] = config.token_bounced[0];
	skb->cb[1] = config.token_bounced[1];
	skb->cb[2] = config.token_bounced[2];
}

static __always_inline bool is_signed(struct __sk_buff *skb)
{
	return skb->mark == config.mark_bounced && skb->cb[0] == config.token_bounced[0] &&
	       skb->cb[1] == config.token_bounced[1] && skb->cb[2] == config.token_bounced[2];
}

/* The secrets end where they were asked for. */
static __always_inline void forget_signature(struct __sk_buff *skb)
{
	skb->mark = 0;
	skb->cb[0] = 0;
	skb->cb[1] = 0;
	skb->cb[2] = 0;
}

/* Only what the tunnel received carries its interface and a tunnel key, and no socket or route of a tenant's. */
static __always_inline bool is_bounced(struct __sk_buff *skb)
{
	struct outer outer;

	return is_signed(skb) && skb->ingress_ifindex == skb->ifindex && has_no_origin(skb) &&
	       get_outer(skb, &outer);
}

#endif
