// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The guard: every frame on the ingress of the tunnel. What came from another host is judged by its tunnel key; what the
 * agent delivers on this host has the agent's mark.
 */
#include "lib/received.h"
#include "lib/verdict.h"

enum { RAW_SOCKET = 3 };

/*
 * Of a socket of the kernel's own, for ICMP and resets? There is one for each CPU, and all namespaces share it. A local
 * frame still takes room of it, and a tap may keep that for as long as nobody reads: then nobody's echo is answered.
 */
static __always_inline bool is_of_shared_socket(struct __sk_buff *skb)
{
	struct bpf_sock *socket = skb->sk;

	if (!socket)
		return false;
	socket = bpf_sk_fullsock(socket);
	return socket && socket->type == RAW_SOCKET &&
	       (socket->family == FAMILY_IPV4 || socket->family == FAMILY_IPV6);
}

/* Without a tunnel key the agent's word is all there is. A copy comes by again, without the socket. */
static __always_inline int accept_locally(struct __sk_buff *skb)
{
	if (skb->mark != config.mark_local)
		return MZN_DROP_NO_TUNNEL_KEY;
	if (is_of_shared_socket(skb) && bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS) >= 0)
		return MZN_PASS_COPIED;
	return MZN_PASS_ACCEPTED_LOCALLY;
}

SEC("tc")
int mzn_guard(struct __sk_buff *skb)
{
	struct packet packet;
	struct outer outer;
	int verdict;

	begin(&packet, skb->len);
	if (get_outer(skb, &outer))
		verdict = carry_out_received(skb, &packet, &outer, judge_received(skb, &packet, &outer));
	else
		verdict = accept_locally(skb);
	return conclude(skb, MZN_PROGRAM_GUARD, &packet, verdict);
}
