/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What stands in for the kernel around one run of a program: facts go in, what the program asked for comes out. One
 * entry of a map that user space has mapped into its memory; mizarnet/_datapath/dry_run/facts.py has the same layout.
 */
#ifndef MZN_DRY_RUN_FACTS_H
#define MZN_DRY_RUN_FACTS_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <mizarnet/abi.h>

enum { OPTION_ROOM = 256 };

struct dry_key {
	__u32 family; /* 4, 6; 0: none */
	__u32 vni;
	__u32 ttl;
	__u32 flags; /* told: BPF_F_TUNINFO_FLAGS, network order; asked: BPF_F_* given to the helper */
	__u32 remote[4]; /* network order; IPv4 in the last word */
	__u32 local[4];
};

struct dry_facts {
	__u32 length; /* the frame is cut, or lengthened by zeros, to this; 0: it stays */
	__u32 tag; /* VLAN protocol and tag to keep beside the frame; 0: none */
	__u32 hash;
	__u32 refuse_key; /* the kernel does not take a tunnel key */
	__u64 clock; /* nanoseconds */
	__u32 origin; /* enum origin_kind */
	__u32 origin_ifindex;
	__u64 origin_cookie;
	__u32 origin_family;
	__s32 hop_result; /* BPF_FIB_LKUP_RET_* */
	__u32 hop_ifindex;
	__u8 hop_destination_mac[6], hop_source_mac[6];
	struct dry_key key;
	__u32 other_host; /* the outer Ethernet address is not the device's own */
	__u32 segment_size; /* as it cannot be told by the context, of a packet that is taken out of its tunnel */
	__u32 refuse_room; /* the kernel does not take the outer headers away */
	__u32 pad;
	__u32 is_checksum_deferred, checksum_start, checksum_place;
	__u32 option_bytes;
	__u8 options[OPTION_ROOM];
	__u32 socket_family, socket_type; /* of the socket that a local frame comes from */
	__s32 copy_result; /* of bpf_clone_redirect */
};

struct dry_asked {
	__u32 verdicts; /* how often a verdict was counted; the last of them */
	__u32 program, verdict, length;
	__u32 sent;
	__u32 sent_slot, sent_verdict, sent_length;
	__u32 received;
	__u32 received_slot, received_length;
	__u32 undelivered;
	__u32 undelivered_slot, undelivered_verdict, undelivered_length;
	__u32 redirects;
	__u32 redirect_ifindex, redirect_flags;
	__u32 keys;
	struct dry_key key;
	__u32 key_extra; /* every member of the key that is expected to be zero */
	__u32 hops;
	__u32 hop_family, hop_protocol, hop_ifindex;
	__u32 hop_source[4], hop_destination[4];
	__u32 copies;
};

struct dry_run {
	struct dry_facts facts;
	struct dry_asked asked;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dry_run);
} dry_run SEC(".maps");

static __always_inline struct dry_run *this_run(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&dry_run, &zero);
}

/*
 * The same as a call, since each copy takes some of a program's stack: together with functions it may have 512 bytes. Not
 * everybody who includes this calls it.
 */
static __noinline __attribute__((unused)) struct dry_run *shared_run(void)
{
	return this_run();
}

#endif
