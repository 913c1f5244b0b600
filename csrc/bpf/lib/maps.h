/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps and constants of one attached agent. Sizes of one entry are set by user space before loading. */
#ifndef MZN_MAPS_H
#define MZN_MAPS_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <mizarnet/abi.h>

/* A section, and so a map, of its own: programs that are loaded later for the same maps use this one, secrets too. */
SEC(".rodata.config") const volatile struct mzn_config config;

/* Digest of this object, by which each program says what it was made from. */
SEC(".rodata.build") const volatile __u64 build;

/* (VNI, address) to the place an endpoint lives at: on this host or on another. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct mzn_endpoint_key);
	__type(value, struct mzn_endpoint);
} endpoints SEC(".maps");

/* Source MAC to the local endpoint that may use it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct mzn_mac);
	__type(value, struct mzn_sender);
} senders SEC(".maps");

/* (VNI, prefix) to gateway and next hop or transit switches. A trie allocates per entry, but never per endpoint. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct mzn_network_key);
	__type(value, struct mzn_network);
} networks SEC(".maps");

/* (VNI, host) to the next hops that it has. There are never more than networks, of which each has one at most. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct mzn_router_key);
	__type(value, struct mzn_router);
} routers SEC(".maps");

/* All next hops. The entry more, of VNI 0, says that a call is changing them. Read by no program. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4097);
	__type(key, struct mzn_endpoint_key);
	__type(value, __u32);
} vias SEC(".maps");

/* Underlay prefixes that tunnel packets are accepted from. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct mzn_peer_key);
	__type(value, struct mzn_peer);
} peers SEC(".maps");

enum { VERDICT_COUNTERS = MZN_LIMIT_PROGRAMS * MZN_LIMIT_VERDICTS };

/* program * MZN_LIMIT_VERDICTS + verdict */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICT_COUNTERS);
	__type(key, __u32);
	__type(value, struct mzn_counter);
} verdicts SEC(".maps");

/* mzn_sender.slot */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mzn_traffic);
} traffic SEC(".maps");

/*
 * The reasons of what `traffic` counts as dropped and undelivered. One for all CPUs: a reason that was not counted for
 * long makes room for another, and the sums in `traffic` tell that it did.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MZN_LIMIT_DROPS);
	__type(key, struct mzn_drop_key);
	__type(value, struct mzn_counter);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct mzn_record_key);
	__type(value, struct mzn_record);
} records SEC(".maps");

/* Further addresses and routes of endpoints. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct mzn_item_key);
	__type(value, struct mzn_item);
} items SEC(".maps");

/* Claims, by which two endpoints never get the same index or address: read by no program. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mzn_slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct mzn_endpoint_key);
	__type(value, struct mzn_address);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mzn_meta);
} meta SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mzn_switching);
} switching SEC(".maps");

/* A stamp that never repeats, written after each change of a table: who reads the same one twice saw no change. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} changes SEC(".maps");

/* Readers of events. An index has one owner, which writes its whole value. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MZN_LIMIT_READERS);
	__type(key, __u32);
	__type(value, struct mzn_reader);
} readers SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* of the pattern; each reader brings its own */
};

/* The ring of each reader. A map of maps keeps them whoever dies, as opposed to a PROG_ARRAY. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MZN_LIMIT_READERS);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MZN_LIMIT_READERS);
	__type(key, __u32);
	__type(value, struct mzn_heard);
} heard SEC(".maps");

/* A section of its own, which programs read where it lies: one load where nobody reads. */
SEC(".data.attention") struct mzn_attention attention = {};

/* The tunnel's device. The kernel takes it out when the device ends or leaves the namespace; nothing is sent by it. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} lifeline SEC(".maps");

/* The same for the shortcut: all programs that read a map of this kind must be of one type (5.18). */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} landing SEC(".maps");

/*
 * The device that a switch stands on, each loaded program's own, and the same for a shortcut. The program goes along when
 * its device is moved to another namespace, where the indexes above are those of other devices. The kernel takes it out.
 */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} switch_device SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} shortcut_device SEC(".maps");

#endif
