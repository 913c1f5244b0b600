/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the BPF programs and user space share: keys, values, verdicts and limits, and nothing else.
 *
 * This is their only definition. Python's numbers and layouts are generated from it (tools/gen_abi.py, which wants one
 * member on a line) and compared with the BTF of the object before it is loaded.
 * Padding is spelled out, because user space writes whole keys and the kernel compares whole keys.
 * Addresses are in network byte order, all other numbers in the host's. The first word of an enumerator is its group,
 * which Python leaves out: its class says it.
 */
#ifndef MIZARNET_ABI_H
#define MIZARNET_ABI_H

#include <linux/types.h>

enum mzn_limit {
	MZN_LIMIT_SCHEMA = 1, /* Version of the layouts in this file. */
	MZN_LIMIT_VNI_MAX = 0xffffff, /* Highest VNI; zero is not one. */
	MZN_LIMIT_ADDRESSES = 2, /* Own addresses of a sender: one IPv4 and one IPv6. */
	MZN_LIMIT_SWITCHES = 16, /* Transit switches of a network. */
	MZN_LIMIT_NAME_BYTES = 192, /* An endpoint's name with its final zero. */
	MZN_LIMIT_PATH_BYTES = 256, /* A namespace's path with its final zero. */
	MZN_LIMIT_DEVICE_BYTES = 16, /* A device's name with its final zero (the kernel's IFNAMSIZ). */
	MZN_LIMIT_LABEL_BYTES = 128, /* Room for an endpoint's labels. */
	MZN_LIMIT_FEEDS = 16, /* Names of feeds. */
	MZN_LIMIT_FEED_BYTES = 32, /* A feed's name with its final zero. */
	MZN_LIMIT_GROUPS = 8, /* Groups of maps that may be added to the first one. */
	MZN_LIMIT_VERDICTS = 256, /* Room for verdicts of one program in the map `verdicts`. */
	MZN_LIMIT_PROGRAMS = 3, /* Programs that count verdicts. */
	MZN_LIMIT_FIRST_DROP = 64, /* Verdicts from this number on are drop reasons; below it, frames went on. */
};

enum mzn_program {
	MZN_PROGRAM_AGENT = 0, /* TC, egress of the tunnel. */
	MZN_PROGRAM_GUARD = 1, /* TC, ingress of the tunnel. */
	MZN_PROGRAM_SWITCH = 2, /* XDP, ingress of the underlay. */
};

/*
 * What a program decided about a frame. A number, once published, keeps its meaning for good.
 * A frame that the stack segments later (GSO) is decided and counted once. What becomes of it is in bpf/lib/fate.h.
 */
enum mzn_verdict {
	MZN_PASS_ENCAPSULATED = 0, /* Agent: tunnel key set, leaves towards a host or transit switch. */
	MZN_PASS_DELIVERED_LOCALLY = 1, /* Agent: handed to the tunnel's own ingress for a local endpoint. */
	MZN_PASS_NEIGHBOUR_ANSWERED = 2, /* Agent: ARP request or neighbour solicitation answered. */
	MZN_PASS_GATEWAY_ANSWERED = 3, /* Agent: answered in the gateway's name (echo, time exceeded). */
	MZN_PASS_BOUNCE_ADMITTED = 4, /* Agent: the guard's bounced frame let out. */
	MZN_PASS_ACCEPTED = 5, /* Guard: decapsulated frame given to a local endpoint. */
	MZN_PASS_ACCEPTED_LOCALLY = 6, /* Guard: the agent's own frame given to a local endpoint. */
	MZN_PASS_BOUNCED = 7, /* Guard, switch: sent on to the host that has the endpoint. */
	MZN_PASS_PASSED = 8, /* Switch: not its business, left to the kernel. */
	MZN_PASS_PASSED_NO_NEIGHBOUR = 9, /* Switch: next hop not resolved, left to the guard. */
	MZN_PASS_PASSED_FORWARDING_OFF = 10, /* Switch: forwarding is off on the underlay, left to the guard. */
	MZN_PASS_PASSED_OTHER_INTERFACE = 11, /* Switch: next hop is behind another device, left to the guard. */
	MZN_PASS_PASSED_CHECKSUM = 12, /* Switch: outer checksum on a generic hook, left to the guard. */
	MZN_PASS_PASSED_NO_ROUTE = 13, /* Switch: no usable route to the next hop, left to the guard. */
	MZN_PASS_COPIED = 14, /* Guard: a copy without the sender's socket replaces the agent's own frame. */

	MZN_DROP_TRUNCATED = 64, /* A header does not fit into the frame. */
	MZN_DROP_VLAN_TAGGED = 65, /* A VLAN tag, in the bytes or beside them. */
	MZN_DROP_UNKNOWN_ETHERTYPE = 66, /* Neither IPv4 nor IPv6 nor ARP. */
	MZN_DROP_BAD_IPV4 = 67, /* IPv4 version, header length or total length. */
	MZN_DROP_BAD_IPV6 = 68, /* IPv6 version or payload length. */
	MZN_DROP_BAD_ARP = 69, /* ARP for anything but IPv4 over Ethernet, or no request. */
	MZN_DROP_TUNNEL_OWN = 70, /* Sent by the tunnel device itself, which has nothing to say. */
	MZN_DROP_UNKNOWN_SENDER = 71, /* Source MAC without a record. */
	MZN_DROP_FOREIGN_DEVICE = 72, /* Routed through a device that is not the sender's. */
	MZN_DROP_FOREIGN_SOCKET = 73, /* Sent by a socket of another namespace. */
	MZN_DROP_REFLECTED = 74, /* Socket of a routed family without a route: a frame that was received before. */
	MZN_DROP_NO_ORIGIN = 75, /* Neither route nor socket, and not ARP. */
	MZN_DROP_FOREIGN_SOURCE = 76, /* Source address that is not the sender's. */
	MZN_DROP_ARP_SPOOFED = 77, /* ARP in another's name. */
	MZN_DROP_OWN_ADDRESS_ASKED = 78, /* Question about or announcement of the own address: consumed. */
	MZN_DROP_NEIGHBOUR_UNKNOWN = 79, /* Question about an address that nobody has. */
	MZN_DROP_MULTICAST = 80, /* Multicast or broadcast destination. */
	MZN_DROP_NO_DESTINATION = 81, /* Neither an endpoint nor a network of the VNI. */
	MZN_DROP_HAIRPIN = 82, /* Destination is the sender. */
	MZN_DROP_HOP_LIMIT = 83, /* TTL or hop limit used up. */
	MZN_DROP_NO_SWITCH = 84, /* The network has no transit switch and no entry for the destination. */
	MZN_DROP_TUNNEL_KEY_REFUSED = 85, /* The kernel did not take the tunnel key. */
	MZN_DROP_NO_TUNNEL_KEY = 86, /* Guard: no tunnel key and not marked by the agent. */
	MZN_DROP_FOREIGN_PEER = 87, /* Guard: outer source is no peer. */
	MZN_DROP_FOREIGN_LOCAL = 88, /* Guard: outer destination is not the tunnel's address. */
	MZN_DROP_TUNNEL_MAC = 89, /* Guard: addressed to the tunnel device itself. */
	MZN_DROP_SOURCE_IS_LOCAL = 90, /* Guard: a remote host speaks for an endpoint of this one. */
	MZN_DROP_UNREADABLE = 91, /* The kernel could not make the headers readable or writable. */
	MZN_DROP_BAD_ND = 92, /* Malformed neighbour discovery, or any from a remote host. */
	MZN_DROP_ND_SPOOFED = 93, /* Neighbour discovery in another's name, or in a router's. */
	MZN_DROP_EXTENSION_HEADERS = 94, /* More IPv6 extension headers than are walked. */
	MZN_DROP_OUTER_HOP_LIMIT = 95, /* Guard: bounced too often. */
	MZN_DROP_GENEVE_OPTIONS = 96, /* Guard: a control frame, or an option that must be understood. */
	MZN_DROP_OVERSIZED = 97, /* Longer than the tunnel's MTU, and not to be segmented. */
	MZN_DROP_BAD_OFFLOAD = 98, /* A checksum left to the device would change headers that were checked. */
};

/* An address with its family, so that ::/0 never swallows IPv4. IPv4 stands in the last four bytes, after ::ffff. */
struct mzn_ip {
	__u32 family; /* 4, 6, or 0 for none */
	__u32 words[4];
};

struct mzn_mac {
	__u8 bytes[6];
	__u16 pad;
};

struct mzn_endpoint_key {
	__u32 vni;
	struct mzn_ip ip;
};

enum mzn_place {
	MZN_PLACE_LOCAL = 1, /* On this host. */
	MZN_PLACE_REMOTE = 2, /* On another host. */
};

struct mzn_endpoint {
	__u32 place; /* enum mzn_place */
	__u32 slot; /* local: index into `traffic` */
	struct mzn_mac mac; /* local */
	__u32 host[4]; /* remote: underlay address, of the tunnel's family */
	__u32 group; /* for a policy; 0: none */
	__u32 feed; /* the writer that the entry belongs to: digest of its name; 0: by hand */
};

struct mzn_network_key {
	__u32 prefix_length; /* in bits, counted over vni, family and address */
	__u32 vni;
	struct mzn_ip ip;
};

/*
 * A look-up in a prefix table finds the longest prefix that is not longer than the key's. So each of its values says how
 * long its own key is: if as long as the key that was asked for, it is that very key's. No program reads it.
 */
struct mzn_network {
	__u32 prefix_length; /* of its key */
	struct mzn_ip gateway;
	__u32 switch_count;
	__u32 switches[MZN_LIMIT_SWITCHES][4]; /* underlay addresses, of the tunnel's family */
	__u32 feed; /* as of an endpoint */
};

struct mzn_peer_key {
	__u32 prefix_length; /* in bits, counted over family and address */
	struct mzn_ip ip;
};

struct mzn_peer {
	__u32 prefix_length; /* of its key */
	__u32 feed; /* as of an endpoint */
};

struct mzn_own_address {
	struct mzn_ip ip;
	__u32 prefix_length; /* of the on-link prefix, in bits of the family's own address */
};

enum mzn_sender_flag {
	MZN_FLAG_FORWARDING = 1, /* May send from addresses that are not its own. */
	MZN_FLAG_TRUSTED_NETNS = 2, /* Of the record only: another user namespace may own the namespace. */
	MZN_FLAG_PRIVATE_NETNS = 4, /* Of the record only: the namespace is the endpoint's and ends with it. */
	MZN_FLAG_ROUTE_IF_NONE = 8, /* Of the record only: a default route unless the namespace had one. */
	MZN_FLAG_ROUTE_NEVER = 16, /* Of the record only: no default route. */
	MZN_FLAG_ROUTED_IPV4 = 32, /* Of the record only: the default route of IPv4 is the endpoint's. */
	MZN_FLAG_ROUTED_IPV6 = 64, /* Of the record only: that of IPv6 is. */
};

struct mzn_sender {
	__u64 netns_cookie; /* namespace that owns the device */
	__u32 ifindex; /* in that namespace; 0: not known yet */
	__u32 vni;
	__u32 slot; /* index into `traffic` */
	__u32 flags; /* enum mzn_sender_flag */
	struct mzn_own_address addresses[MZN_LIMIT_ADDRESSES];
	struct mzn_ip gateways[MZN_LIMIT_ADDRESSES];
	__u32 group; /* as of an endpoint */
	__u32 pad;
	__u8 record[16]; /* key in `records`; no program reads it */
};

struct mzn_counter {
	__u64 packets;
	__u64 bytes;
};

struct mzn_traffic {
	struct mzn_counter sent;
	struct mzn_counter received;
	struct mzn_counter dropped;
};

/* The cold half of an endpoint: everything needed to adopt, compare or repair it. Read by no program. */
struct mzn_record_key {
	__u8 digest[16]; /* of the name */
};

enum mzn_kind {
	MZN_KIND_MACVLAN = 1, /* A device in the container's namespace. */
	MZN_KIND_MACVTAP = 2, /* A device with a descriptor for a VM. */
};

/* How far an object has come, written before its first step and after its last. */
enum mzn_state {
	MZN_STATE_MAKING = 1, /* Begun, and not whole. */
	MZN_STATE_LIVE = 2, /* Whole. */
	MZN_STATE_DELETING = 3, /* Its end has begun. */
};

struct mzn_record {
	__u64 instance; /* random: tells two lives of one name apart */
	__u64 maker; /* the lock that its maker or deleter holds: who holds the same one knows that the other is dead */
	__u64 changed; /* when `state` was written, in nanoseconds of the boot clock */
	__u64 generation; /* how often it was changed in place */
	__u64 netns_cookie;
	__u64 netns_device; /* st_dev and st_ino of the namespace */
	__u64 netns_inode;
	__u32 vni;
	__u32 slot;
	__u32 ifindex;
	__u32 mtu;
	__u32 kind; /* enum mzn_kind */
	__u32 flags; /* enum mzn_sender_flag */
	__s32 nsid; /* the host namespace's number for the endpoint's */
	__u32 state; /* enum mzn_state */
	__u32 group; /* as of an endpoint */
	__u32 pad;
	struct mzn_mac mac;
	struct mzn_own_address addresses[MZN_LIMIT_ADDRESSES];
	struct mzn_ip gateways[MZN_LIMIT_ADDRESSES];
	char ifname[MZN_LIMIT_DEVICE_BYTES];
	char netns[MZN_LIMIT_PATH_BYTES];
	char name[MZN_LIMIT_NAME_BYTES];
	char labels[MZN_LIMIT_LABEL_BYTES];
};

/* Who has an address of this host, in which there is room for any number: written before the entry in `endpoints`. */
struct mzn_address {
	__u64 instance; /* of the record */
	__u8 record[16];
	__u32 prefix_length; /* of the on-link prefix, in bits of the family's own address */
	__u32 flags; /* none yet */
};

/* Who has an index into `traffic`. */
struct mzn_slot {
	__u64 instance; /* of the record */
	__u8 record[16];
};

enum mzn_encap {
	MZN_ENCAP_VXLAN = 1, /* RFC 7348. */
	MZN_ENCAP_GENEVE = 2, /* RFC 8926. */
};

enum mzn_switch_flag {
	MZN_SWITCH_GENERIC_XDP = 1, /* Attached to the generic hook, where checksums may be unfinished. */
	MZN_SWITCH_SET_FORWARDING_IPV4 = 2, /* IPv4 forwarding of the device was off before. */
	MZN_SWITCH_SET_FORWARDING_IPV6 = 4, /* IPv6 forwarding of the device was off before. */
	MZN_SWITCH_SET_ACCEPT_RA = 8, /* Router advertisements were accepted only because forwarding was off. */
};

enum mzn_layer {
	MZN_LAYER_TCX = 1, /* Agent and guard stand on tcx. */
	MZN_LAYER_CLSACT = 2, /* They stand as filters of a clsact. */
};

/*
 * By this a data path is known, whatever version of this package attached it: no later schema moves these members. They
 * are the beginning of the one value of an array that agent and guard share.
 */
struct mzn_head {
	__u8 magic[8]; /* "mizarnet" */
	__u32 schema; /* MZN_LIMIT_SCHEMA of whoever loaded the object */
	__u32 ifindex; /* of the tunnel */
	__u64 netns_cookie; /* of the host's namespace */
	__u64 instance; /* random: tells two data paths apart */
	__u64 build; /* digest of the object that was loaded last */
};

struct mzn_meta {
	struct mzn_head head;
	__u32 state; /* enum mzn_state */
	__u32 layers; /* enum mzn_layer: where the programs shall stand */
	__u64 changed; /* as of a record */
	__u64 generation; /* how often the programs were replaced */
	__u32 encap; /* enum mzn_encap */
	__u32 port;
	__u32 mtu;
	__u32 underlay_ifindex;
	__u32 schemas[MZN_LIMIT_GROUPS]; /* of the groups of maps that may be added; 0: not there */
	struct mzn_ip local;
	char tunnel[MZN_LIMIT_DEVICE_BYTES]; /* names are hints: others may change them */
	char underlay[MZN_LIMIT_DEVICE_BYTES];
	char feeds[MZN_LIMIT_FEEDS][MZN_LIMIT_FEED_BYTES]; /* names of writers; empty: room for one */
	__u32 pad;
};

/* The transit switch, if there is one: read by its program, and by whoever puts back what it changed. */
struct mzn_switching {
	__u32 ifindex; /* of its device; 0: none */
	__u32 flags; /* enum mzn_switch_flag */
	__u32 generation; /* how often a program was put there */
};

/* Constants of one attached agent, written before the programs are loaded. */
struct mzn_config {
	__u32 mark_local; /* secret: the agent's word to the guard on a frame without a tunnel key */
	__u32 mark_bounced; /* secret: the guard's word to the agent on a bounced frame */
	__u32 token_bounced[3]; /* secret: the same, in the packet's control block */
	struct mzn_ip local; /* the tunnel's underlay address */
	struct mzn_mac virtual_mac; /* answers for everything that is not on this host */
	struct mzn_mac tunnel_mac;
	__u32 encap; /* enum mzn_encap */
	__u32 port; /* of the tunnel, UDP */
	__u32 mtu; /* of the tunnel */
};

#endif
