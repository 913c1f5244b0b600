/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The helpers whose answer depends on more than the frame and the maps. Each does what the kernel's does, with the facts
 * that were told, and notes what it was given.
 */
#ifndef MZN_DRY_RUN_HELPERS_H
#define MZN_DRY_RUN_HELPERS_H

#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>

#include "facts.h"

enum { NO_SUCH_ENTRY = -2, INVALID = -22, NO_MEMORY = -12, WRONG_PROTOCOL = -71 };

static __always_inline int dry_get_key(struct __sk_buff *skb, struct bpf_tunnel_key *key, __u32 size, __u64 flags)
{
	struct dry_run *run = shared_run();
	__u32 family = flags & BPF_F_TUNINFO_IPV6 ? 6 : 4;

	(void)size;
	barrier_var(skb); /* or clang passes nothing to the function that calls this, which the verifier refuses */
	if (!run || !run->facts.key.family)
		return INVALID;
	if (run->facts.key.family != family)
		return WRONG_PROTOCOL;
	key->tunnel_id = run->facts.key.vni;
	key->tunnel_ttl = run->facts.key.ttl;
	key->tunnel_flags = flags & BPF_F_TUNINFO_FLAGS ? run->facts.key.flags : 0;
	for (int i = 0; i < 4 && family == 6; i++) {
		key->remote_ipv6[i] = run->facts.key.remote[i];
		key->local_ipv6[i] = run->facts.key.local[i];
	}
	if (family == 4) {
		key->remote_ipv4 = bpf_ntohl(run->facts.key.remote[3]);
		key->local_ipv4 = bpf_ntohl(run->facts.key.local[3]);
	}
	return 0;
}

/* Not inline: the programs have little room on the stack. */
static __noinline void note_key(struct dry_asked *asked, const struct bpf_tunnel_key *key, __u64 flags)
{
	bool is_ipv6 = flags & BPF_F_TUNINFO_IPV6;

	asked->key.family = is_ipv6 ? 6 : 4;
	asked->key.vni = key->tunnel_id;
	asked->key.ttl = key->tunnel_ttl;
	asked->key.flags = flags;
	for (int i = 0; i < 4; i++) {
		asked->key.remote[i] = is_ipv6 ? key->remote_ipv6[i] : 0;
		asked->key.local[i] = is_ipv6 ? key->local_ipv6[i] : 0;
	}
	if (!is_ipv6) {
		asked->key.remote[3] = bpf_htonl(key->remote_ipv4);
		asked->key.local[3] = bpf_htonl(key->local_ipv4);
	}
	asked->key_extra = key->tunnel_tos | key->tunnel_ext | key->tunnel_label;
}

static __always_inline int dry_set_key(struct __sk_buff *skb, struct bpf_tunnel_key *key, __u32 size, __u64 flags)
{
	struct dry_run *run = shared_run();

	(void)skb, (void)size;
	if (!run || run->facts.refuse_key)
		return INVALID;
	run->asked.keys += 1;
	note_key(&run->asked, key, flags);
	return 0;
}

static __always_inline int dry_get_options(struct __sk_buff *skb, __u8 *options, __u32 size)
{
	struct dry_run *run = this_run();

	barrier_var(skb); /* as above */
	if (!run || !run->facts.option_bytes)
		return NO_SUCH_ENTRY;
	if (run->facts.option_bytes > size || size > OPTION_ROOM)
		return NO_MEMORY;
	/* Not memcpy, which would be two hundred instructions through the stack. */
	return bpf_probe_read_kernel(options, size, run->facts.options) ?: (long)run->facts.option_bytes;
}

static __always_inline __u32 dry_hash(struct __sk_buff *skb)
{
	struct dry_run *run = shared_run();

	(void)skb;
	return run ? run->facts.hash : 0;
}

static __always_inline __u64 dry_clock(void)
{
	struct dry_run *run = shared_run();

	return run ? run->facts.clock : 0;
}

static __always_inline int dry_redirect(__u32 ifindex, __u64 flags)
{
	struct dry_run *run = shared_run();

	if (run) {
		run->asked.redirects += 1;
		run->asked.redirect_ifindex = ifindex;
		run->asked.redirect_flags = flags;
	}
	return 7; /* TC_ACT_REDIRECT */
}

/* A test run has a socket of its own, which stands for none that a packet may come from. */
static __always_inline struct bpf_sock *dry_fullsock(void)
{
	struct dry_run *run = shared_run();

	return run ? (void *)((__u8 *)&run->facts.socket_family - offsetof(struct bpf_sock, family)) : NULL;
}

/* A real one would be sent. */
static __always_inline int dry_copy(void)
{
	struct dry_run *run = shared_run();

	if (!run)
		return INVALID;
	run->asked.copies += 1;
	return run->facts.copy_result;
}

static __always_inline int dry_find_hop(struct bpf_fib_lookup *hop)
{
	struct dry_run *run = shared_run();

	if (!run)
		return INVALID;
	run->asked.hops += 1;
	run->asked.hop_family = hop->family;
	run->asked.hop_protocol = hop->l4_protocol;
	run->asked.hop_ifindex = hop->ifindex;
	for (int i = 0; i < 4; i++) {
		run->asked.hop_source[i] = hop->ipv6_src[i];
		run->asked.hop_destination[i] = hop->ipv6_dst[i];
	}
	hop->ifindex = run->facts.hop_ifindex;
	__builtin_memcpy(hop->dmac, run->facts.hop_destination_mac, 6);
	__builtin_memcpy(hop->smac, run->facts.hop_source_mac, 6);
	return run->facts.hop_result;
}

/* A kernel older than the shortcut needs does not know all flags; what they change there no program reads. */
static __always_inline int dry_adjust_room(struct __sk_buff *skb, __s32 bytes, __u32 mode, __u64 flags)
{
	struct dry_run *run = shared_run();
	const __u64 known = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;

	if (!run || run->facts.refuse_room)
		return INVALID;
	if (!bpf_skb_adjust_room(skb, bytes, mode, flags))
		return 0;
	return bpf_skb_adjust_room(skb, bytes, mode, flags & known);
}

#define bpf_skb_adjust_room(skb, bytes, mode, flags) dry_adjust_room(skb, bytes, mode, flags)
#define bpf_skb_get_tunnel_key(skb, key, size, flags) dry_get_key(skb, key, size, flags)
#define bpf_skb_set_tunnel_key(skb, key, size, flags) dry_set_key(skb, key, size, flags)
#define bpf_skb_get_tunnel_opt(skb, options, size) dry_get_options(skb, options, size)
#define bpf_get_hash_recalc(skb) dry_hash(skb)
#define bpf_ktime_get_ns() dry_clock()
#define bpf_sk_fullsock(socket) dry_fullsock()
#define bpf_clone_redirect(skb, ifindex, flags) dry_copy()
#define bpf_redirect(ifindex, flags) dry_redirect(ifindex, flags)
#define bpf_fib_lookup(ctx, hop, size, flags) dry_find_hop(hop)

#endif
