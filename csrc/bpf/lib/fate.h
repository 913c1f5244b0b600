/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What becomes of a frame is a property of its verdict. On the tunnel each program knows its own verdicts by name: one
 * of another program, and one that is added and forgotten here, drops. The switch leaves to the kernel what it does not
 * send.
 */
#ifndef MZN_FATE_H
#define MZN_FATE_H

#include <mizarnet/abi.h>

enum fate {
	FATE_DROP,
	FATE_GO_ON, /* the way it was going */
	FATE_TURN, /* to the other side: from egress to ingress, from ingress to egress */
};

static __always_inline enum fate agent_fate(int verdict)
{
	switch (verdict) {
	case MZN_PASS_ENCAPSULATED:
	case MZN_PASS_BOUNCE_ADMITTED:
		return FATE_GO_ON;
	case MZN_PASS_DELIVERED_LOCALLY:
	case MZN_PASS_NEIGHBOUR_ANSWERED:
	case MZN_PASS_GATEWAY_ANSWERED:
	case MZN_PASS_OVERSIZED_ANSWERED:
		return FATE_TURN;
	default:
		return FATE_DROP;
	}
}

static __always_inline enum fate guard_fate(int verdict)
{
	switch (verdict) {
	case MZN_PASS_ACCEPTED:
	case MZN_PASS_ACCEPTED_LOCALLY:
		return FATE_GO_ON;
	case MZN_PASS_BOUNCED:
		return FATE_TURN;
	case MZN_PASS_COPIED: /* its copy comes by again */
	default:
		return FATE_DROP;
	}
}

/* Turned is what it took out of the tunnel: to the ingress of the tunnel's device. */
static __always_inline enum fate shortcut_fate(int verdict)
{
	switch (verdict) {
	case MZN_PASS_PASSED:
		return FATE_GO_ON;
	case MZN_PASS_ACCEPTED:
		return FATE_TURN;
	default:
		return FATE_DROP;
	}
}

static __always_inline enum fate switch_fate(int verdict)
{
	return verdict == MZN_PASS_BOUNCED ? FATE_TURN : FATE_GO_ON;
}

#endif
