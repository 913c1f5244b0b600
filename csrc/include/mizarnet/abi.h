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
	MZN_LIMIT_SCHEMA = 5, /* Version of the layouts in this file. */
	MZN_LIMIT_VNI_MAX = 0xffffff, /* Highest VNI; zero is not one. */
	MZN_LIMIT_ADDRESSES = 2, /* Own addresses in a sender's entry: the first of IPv4 and of IPv6. */
	MZN_LIMIT_SWITCHES = 16, /* Transit switches of a network. */
	MZN_LIMIT_WITNESSES = 4, /* Next hops of a VNI that are kept for a host that has them. */
	MZN_LIMIT_NAME_BYTES = 192, /* An endpoint's name with its final zero. */
	MZN_LIMIT_PATH_BYTES = 256, /* A namespace's path with its final zero. */
	MZN_LIMIT_DEVICE_BYTES = 16, /* A device's name with its final zero (the kernel's IFNAMSIZ). */
	MZN_LIMIT_LABEL_BYTES = 128, /* Room for an endpoint's labels. */
	MZN_LIMIT_FEEDS = 16, /* Names of feeds. */
	MZN_LIMIT_FEED_BYTES = 32, /* A feed's name with its final zero. */
	MZN_LIMIT_GROUPS = 8, /* Groups of maps that may be added to the first one. */
	MZN_LIMIT_VERDICTS = 256, /* Room for verdicts of one program in the map `verdicts`. */
	MZN_LIMIT_PROGRAMS = 4, /* Programs that count verdicts. */
	MZN_LIMIT_READERS = 4, /* Readers of events at one time. */
	MZN_LIMIT_EVENT_BYTES = 128, /* First bytes of a frame in an event. */
	MZN_LIMIT_EVENT_BUDGET = 10000, /* Events that a reader gets of each CPU in a second. */
	MZN_LIMIT_DROPS = 16384, /* Room for reasons of endpoints' drops in the map `drops`. */
	MZN_LIMIT_FIRST_DROP = 64, /* Verdicts from this number on are drop reasons; below it, frames went on. */
};

enum mzn_program {
	MZN_PROGRAM_AGENT = 0, /* TC, egress of the tunnel. */
	MZN_PROGRAM_GUARD = 1, /* TC, ingress of the tunnel. */
	MZN_PROGRAM_SWITCH = 2, /* XDP, ingress of the underlay. */
	MZN_PROGRAM_SHORTCUT = 3, /* TC, ingress of the underlay. */
};

/*
 * What a program decided about a frame. A number, once published, keeps its meaning for good.
 * A frame that the stack segments later (GSO) is decided and counted once. What becomes of it is in bpf/lib/fate.h.
 *
 * In front of each: its kind (passed, chatter, tenant, operator, attack, kernel), what usually brings it about, and what
 * to do then. Python's users read it as Verdict.X.kind, .cause and .remedy.
 */
enum mzn_verdict {
	/* passed: The destination lives on another host, or behind a transit switch. Remedy: None needed. */
	MZN_PASS_ENCAPSULATED = 0, /* Agent: tunnel key set, leaves towards a host or transit switch. */
	/* passed: The destination lives on this host. Remedy: None needed. */
	MZN_PASS_DELIVERED_LOCALLY = 1, /* Agent: handed to the tunnel's own ingress for a local endpoint. */
	/* passed: An endpoint asked for the MAC of an address that is known. Remedy: None needed. */
	MZN_PASS_NEIGHBOUR_ANSWERED = 2, /* Agent: ARP request or neighbour solicitation answered. */
	/*
	 * passed: An endpoint asked for its gateway's echo, or sent a packet that expired there. Remedy: None
	 * needed.
	 */
	MZN_PASS_GATEWAY_ANSWERED = 3, /* Agent: answered in the gateway's name (echo, time exceeded). */
	/* passed: The guard sends a packet on to the host that has its destination. Remedy: None needed. */
	MZN_PASS_BOUNCE_ADMITTED = 4, /* Agent: the guard's bounced frame let out. */
	/* passed: A packet of another host is for an endpoint of this one. Remedy: None needed. */
	MZN_PASS_ACCEPTED = 5, /* Guard, shortcut: decapsulated frame given to a local endpoint. */
	/* passed: The agent or the shortcut handed over a frame for an endpoint of this host. Remedy: None needed. */
	MZN_PASS_ACCEPTED_LOCALLY = 6, /* Guard: a frame of agent or shortcut given to a local endpoint. */
	/*
	 * passed: The sending host does not know that the destination lives elsewhere, or relies on this transit
	 * switch. Remedy: None needed on a transit switch. On any other host tell the sender's agent where it
	 * lives: agent.endpoints.update().
	 */
	MZN_PASS_BOUNCED = 7, /* Guard, switch: sent on to the host that has the endpoint. */
	/*
	 * passed: The packet is none that the transit switch sends on, or that the shortcut takes out of its tunnel.
	 * Remedy: None needed.
	 */
	MZN_PASS_PASSED = 8, /* Switch, shortcut: not its business, left to the kernel. */
	/*
	 * passed: The kernel does not know the MAC of the next hop yet, so the slower guard sends the packet on.
	 * Remedy: None needed for the first packets. If it keeps growing, the host of the destination does not
	 * answer: ping it.
	 */
	MZN_PASS_PASSED_NO_NEIGHBOUR = 9, /* Switch: next hop not resolved, left to the guard. */
	/*
	 * passed: Forwarding was turned off on the underlay's device, so the slower guard sends the packet on.
	 * Remedy: Attach the switch again, which turns it on: TransitSwitch.attach().
	 */
	MZN_PASS_PASSED_FORWARDING_OFF = 10, /* Switch: forwarding is off on the underlay, left to the guard. */
	/*
	 * passed: The next hop is behind another device than the one that the packet came in by, so the slower
	 * guard sends it on. Remedy: Attach the switch to the device that leads to the hosts, or leave it to the
	 * guard: TransitSwitch.detach().
	 */
	MZN_PASS_PASSED_OTHER_INTERFACE = 11, /* Switch: next hop is behind another device, left to the guard. */
	/*
	 * passed: The sender fills in the outer UDP checksum, which cannot be changed on a generic hook, so the
	 * slower guard sends the packet on. Remedy: Attach the switch with mode="native", or let the sender's
	 * tunnel leave the checksum zero, as mizarnet's does.
	 */
	MZN_PASS_PASSED_CHECKSUM = 12, /* Switch: outer checksum on a generic hook, left to the guard. */
	/*
	 * passed: The host has no route to the next hop, so the packet is left to the guard, which will fail as
	 * well. Remedy: Add a route to the host of the destination, or correct its address:
	 * agent.endpoints.update().
	 */
	MZN_PASS_PASSED_NO_ROUTE = 13, /* Switch: no usable route to the next hop, left to the guard. */
	/*
	 * passed: The frame came from a socket that the kernel shares between namespaces, so a copy without it was
	 * delivered. Remedy: None needed.
	 */
	MZN_PASS_COPIED = 14, /* Guard: a copy without the sender's socket replaces the agent's own frame. */
	/*
	 * passed: A VM or a raw socket sent a packet that is longer than the tunnel's MTU and may not be fragmented,
	 * and was told the MTU. Remedy: None needed. If it keeps growing, set the MTU inside to that of
	 * endpoint.state(), also in the guest.
	 */
	MZN_PASS_OVERSIZED_ANSWERED = 15, /* Agent: too long, so its sender was told the tunnel's MTU. */

	/*
	 * tenant: A raw socket or a VM sent a frame that ends within its headers. Remedy: Correct the program that
	 * makes the frames.
	 */
	MZN_DROP_TRUNCATED = 64, /* A header does not fit into the frame. */
	/*
	 * tenant: A container or VM has a VLAN device on its endpoint, or sends tagged frames. Remedy: Remove the
	 * VLAN inside, and make an endpoint in a VNI of its own for each: Endpoint.create(vni=).
	 */
	MZN_DROP_VLAN_TAGGED = 65, /* A VLAN tag, in the bytes or beside them. */
	/*
	 * tenant: A container or VM speaks a protocol that is neither IPv4 nor IPv6 nor ARP, such as LLDP, STP or
	 * PPPoE. Remedy: Switch that protocol off inside.
	 */
	MZN_DROP_UNKNOWN_ETHERTYPE = 66, /* Neither IPv4 nor IPv6 nor ARP. */
	/*
	 * tenant: A raw socket or a VM sent an IPv4 header that contradicts its frame, or "BIG TCP" is on. Remedy:
	 * Correct the program that makes the frames; keep gso_ipv4_max_size of the device at 65536 or less.
	 */
	MZN_DROP_BAD_IPV4 = 67, /* IPv4 version, header length or total length. */
	/*
	 * tenant: A raw socket or a VM sent an IPv6 header that contradicts its frame, or "BIG TCP" is on. Remedy:
	 * Correct the program that makes the frames; keep gso_max_size of the device at 65536 or less.
	 */
	MZN_DROP_BAD_IPV6 = 68, /* IPv6 version or payload length. */
	/*
	 * tenant: A container or VM sent an ARP message that is no request for IPv4, such as an announcement as a
	 * reply; or another host sent ARP. Remedy: None needed for announcements: an address is told by
	 * agent.endpoints.update(). Hosts with other software than mizarnet must not send ARP through the tunnel.
	 */
	MZN_DROP_BAD_ARP = 69, /* ARP for anything but IPv4 over Ethernet, or no request. */
	/*
	 * operator: A program of the host sends through the tunnel's device, such as a daemon that manages all
	 * devices. Remedy: Exempt the device from that daemon, until tunnel.state() says that it is silent again.
	 */
	MZN_DROP_TUNNEL_OWN = 70, /* Sent by the tunnel device itself, which has nothing to say. */
	/*
	 * tenant: A container or VM sends from another MAC than its endpoint's: it was changed inside, or a bridge
	 * or a nested VM is behind it. Remedy: Give the device the MAC of endpoint.mac again, or make an endpoint
	 * with the MAC that is used: Endpoint.create(mac=).
	 */
	MZN_DROP_UNKNOWN_SENDER = 71, /* Source MAC without a record. */
	/*
	 * attack: A container routed a packet with the MAC of another endpoint through its own device. Remedy: Look
	 * for raw sockets and rewritten headers in the containers of this host: this one used the MAC of the
	 * endpoint named by the frame.
	 */
	MZN_DROP_FOREIGN_DEVICE = 72, /* Routed through a device that is not the sender's. */
	/*
	 * attack: A raw socket, or a tap that was opened in another namespace, sent from the MAC of an endpoint.
	 * Remedy: Open a MACVTAP with endpoint.open_tap(). If none is there, look for raw sockets in the containers
	 * of this host.
	 */
	MZN_DROP_FOREIGN_SOCKET = 73, /* Sent by a socket of another namespace. */
	/*
	 * attack: A container sent a received frame back, by a traffic control action or a program of its own.
	 * Remedy: Take CAP_NET_ADMIN over its namespace from the container.
	 */
	MZN_DROP_REFLECTED = 74, /* Socket of a routed family without a route: a frame that was received before. */
	/*
	 * tenant: A container forwards frames that it did not send itself, from a bridge or a device behind its
	 * own. Remedy: Route in the container in place of bridging, with Endpoint.create(forwarding=True).
	 */
	MZN_DROP_NO_ORIGIN = 75, /* Neither route nor socket, and not ARP. */
	/*
	 * tenant: A container or VM sends from an address that its endpoint does not have: changed inside,
	 * forwarded, or forged. Remedy: Make the endpoint with that address, or allow it to forward:
	 * Endpoint.create(ip=), Endpoint.create(forwarding=True).
	 */
	MZN_DROP_FOREIGN_SOURCE = 76, /* Source address that is not the sender's. */
	/*
	 * tenant: A container or VM speaks ARP from an address or MAC that its endpoint does not have: changed
	 * inside, or forged. Remedy: Set the address inside back to one of endpoint.addresses, or make the endpoint
	 * with it: Endpoint.create(ip=).
	 */
	MZN_DROP_ARP_SPOOFED = 77, /* ARP in another's name. */
	/*
	 * chatter: An endpoint made sure that its address is its own, or announced it, as each stack does. Remedy:
	 * None needed.
	 */
	MZN_DROP_OWN_ADDRESS_ASKED = 78, /* Question about or announcement of the own address: consumed. */
	/*
	 * operator: This host was not told where the address lives that an endpoint asks for, or nobody has it.
	 * Remedy: If the address exists, tell this host: agent.endpoints.update(), or agent.networks.update() with
	 * transit switches.
	 */
	MZN_DROP_NEIGHBOUR_UNKNOWN = 79, /* Question about an address that nobody has. */
	/*
	 * chatter: Multicast or broadcast, which the overlay does not carry: router solicitations, group reports,
	 * DHCP, mDNS. Remedy: None needed. Give addresses with the endpoint, in place of DHCP:
	 * Endpoint.create(ip=).
	 */
	MZN_DROP_MULTICAST = 80, /* Multicast or broadcast destination. */
	/*
	 * operator: This host was not told where the destination lives, or nobody has it; or it is a gateway, which
	 * answers echo alone. Remedy: If the address exists, tell this host: agent.endpoints.update(), or
	 * agent.networks.update() with transit switches.
	 */
	MZN_DROP_NO_DESTINATION = 81, /* Neither an endpoint nor a network of the VNI. */
	/*
	 * tenant: A container or VM sent a packet to its own address through the device. Remedy: Let it reach
	 * itself over its loopback device.
	 */
	MZN_DROP_HAIRPIN = 82, /* Destination is the sender. */
	/*
	 * tenant: A routed packet had no hop left, and no answer could be sent: it is an error itself, or the
	 * sender has no gateway. Remedy: None needed for traceroute. Otherwise give the endpoint a gateway:
	 * Endpoint.create(gateway=).
	 */
	MZN_DROP_HOP_LIMIT = 83, /* TTL or hop limit used up. */
	/*
	 * operator: The network has no transit switch, or this host is one of them, and the address has no entry.
	 * Remedy: Tell this host where the address lives, or which switches know it: agent.endpoints.update(),
	 * agent.networks.update().
	 */
	MZN_DROP_NO_SWITCH = 84, /* The network has no transit switch and no entry for the destination. */
	/*
	 * kernel: The kernel refused the outer headers, for lack of memory. Remedy: Look at the host's memory, and
	 * at the kernel's log.
	 */
	MZN_DROP_TUNNEL_KEY_REFUSED = 85, /* The kernel did not take the tunnel key. */
	/*
	 * attack: A frame came to the guard past the agent: another MACVLAN was set to bridge mode, or a program of
	 * the host redirects frames here. Remedy: Look at endpoint.state(), whose mode must be private, and at
	 * agent.state(), which names programs ahead of ours.
	 */
	MZN_DROP_NO_TUNNEL_KEY = 86, /* Guard: no tunnel key and not marked by the agent. */
	/*
	 * operator: A host that is not among the peers sent a tunnel packet: a new host, or a stranger. Remedy: If
	 * the host is yours, add its underlay prefix: agent.peers.add().
	 */
	MZN_DROP_FOREIGN_PEER = 87, /* Guard: outer source is no peer. */
	/*
	 * operator: A host sent to another address of this one than the tunnel's, since its entry names that. Remedy:
	 * Correct the entry on the sending host to the address of this host's tunnel: agent.endpoints.update().
	 */
	MZN_DROP_FOREIGN_LOCAL = 88, /* Guard: outer destination is not the tunnel's address. */
	/*
	 * attack: A peer addressed the inner frame to the tunnel's own device, as no agent does. Remedy: Look at
	 * the peer, or remove it: agent.peers.discard().
	 */
	MZN_DROP_TUNNEL_MAC = 89, /* Guard: addressed to the tunnel device itself. */
	/*
	 * operator: A peer speaks for an address that an endpoint of this host has: both hosts have it, or
	 * the peer forges it. Remedy: Delete the endpoint on the host that it left: Endpoint.delete_many(). If
	 * there is no other, look at the peer.
	 */
	MZN_DROP_SOURCE_IS_LOCAL = 90, /* Guard: a remote host speaks for an endpoint of this one. */
	/*
	 * kernel: The kernel had no memory for the headers, or may not change them: the sender left a checksum in
	 * them to the device. Remedy: Look at the host's memory.
	 */
	MZN_DROP_UNREADABLE = 91, /* The kernel could not make the headers readable or writable. */
	/*
	 * tenant: A container or VM sent malformed neighbour discovery, or another host sent any. Remedy: Correct
	 * the program that makes the frames. Hosts with other software than mizarnet must not send it through the
	 * tunnel.
	 */
	MZN_DROP_BAD_ND = 92, /* Malformed neighbour discovery, or any from a remote host. */
	/*
	 * tenant: A container or VM claims an IPv6 address that its endpoint does not have, or to be a router:
	 * changed inside, or forged. Remedy: Make the endpoint with that address, and no router inside:
	 * Endpoint.create(ip=). For link-local addresses set addr_gen_mode to eui64.
	 */
	MZN_DROP_ND_SPOOFED = 93, /* Neighbour discovery in another's name, or in a router's. */
	/*
	 * tenant: A container or VM sends IPv6 with more than six extension headers, or more than 128 bytes of
	 * them. Remedy: Correct the program that makes them.
	 */
	MZN_DROP_EXTENSION_HEADERS = 94, /* More IPv6 extension headers than are walked. */
	/*
	 * operator: Hosts disagree on where the destination lives, and sent the packet on to each other until its
	 * outer hops were used up. Remedy: Compare the entry of the address on each of them, and correct it:
	 * agent.endpoints.update().
	 */
	MZN_DROP_OUTER_HOP_LIMIT = 95, /* Guard: bounced too often. */
	/*
	 * operator: A peer sent a Geneve control frame, or an option that must be understood: other software uses
	 * the tunnel's port. Remedy: Let that software use another port, or make the tunnel with one:
	 * Tunnel.create(port=).
	 */
	MZN_DROP_GENEVE_OPTIONS = 96, /* Guard: a control frame, or an option that must be understood. */
	/*
	 * tenant: A VM or a raw socket sent a frame that is longer than the tunnel's MTU, and could not be told, such
	 * as IPv4 that may be fragmented. Remedy: Set the MTU inside to that of endpoint.state(), also in the guest.
	 */
	MZN_DROP_OVERSIZED = 97, /* Longer than the tunnel carries, and not answered. */
	/*
	 * attack: A VM or a raw socket asked the device to write a checksum over headers that were checked. Remedy:
	 * Look at what makes the frames: a guest's own network stack does not do this.
	 */
	MZN_DROP_BAD_OFFLOAD = 98, /* A checksum left to the device would change headers that were checked. */
	/*
	 * operator: Two hosts disagree on where the destination lives: each has an entry that names the other.
	 * Remedy: Compare the entry of the address on both, and correct it: agent.endpoints.update().
	 */
	MZN_DROP_BOUNCED_BACK = 99, /* Guard: its place is the host that it came from. */
	/*
	 * operator: The next hop of the network has no entry on this host, or its endpoint may not forward. Remedy:
	 * Tell this host where it lives, or make it a router: agent.endpoints.update(),
	 * Endpoint.create(forwarding=True).
	 */
	MZN_DROP_NO_NEXT_HOP = 100, /* The network's next hop has no entry, or may not forward. */
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
	__u32 flags; /* local: MZN_FLAG_FORWARDING, MZN_FLAG_TAP */
	__u32 prefix_length; /* local: of the on-link prefix, in bits of the family's own address */
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
	struct mzn_ip via; /* next hop, an address of the VNI; none: transit switches, if there are any */
	__u32 switch_count;
	__u32 switches[MZN_LIMIT_SWITCHES][4]; /* underlay addresses, of the tunnel's family */
	__u32 feed; /* as of an endpoint */
};

/*
 * A host that has next hops of a VNI: from no other one may come what an endpoint of this host has sent, after a router
 * gave it another destination. The entry names some of them, and counts only while `endpoints` has one of these there: so
 * it ends by itself when they move or go.
 */
struct mzn_router_key {
	__u32 vni;
	__u32 host[4]; /* underlay address, of the tunnel's family */
};

struct mzn_router {
	__u32 via_count;
	struct mzn_ip via[MZN_LIMIT_WITNESSES];
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
	MZN_FLAG_MORE_ADDRESSES = 128, /* Of the sender only: further ones have entries of their own. */
	MZN_FLAG_OWN_MTU = 256, /* Of the record only: its MTU was asked for, and does not follow the tunnel's. */
	MZN_FLAG_TAP = 512, /* Of the entry only: what is received goes to a VM. */
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
	__u64 instance; /* of the record that has the index */
	__u64 told; /* the first CPU's, for all: a second, and in the low byte how often it was told in it: lib/told.h */
	struct mzn_counter sent;
	struct mzn_counter received;
	struct mzn_counter dropped; /* of the endpoint, by the agent */
	struct mzn_counter undelivered; /* to the endpoint, by the guard */
};

/* Why an endpoint's frames were dropped. An instance is never given again, an index into `traffic` is. */
struct mzn_drop_key {
	__u64 instance; /* of the endpoint's record */
	__u32 verdict; /* enum mzn_verdict */
	__u32 pad;
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
	__u32 items; /* its entries in `items` have lower numbers */
	struct mzn_mac mac;
	struct mzn_own_address addresses[MZN_LIMIT_ADDRESSES];
	struct mzn_ip gateways[MZN_LIMIT_ADDRESSES];
	char ifname[MZN_LIMIT_DEVICE_BYTES];
	char netns[MZN_LIMIT_PATH_BYTES];
	char name[MZN_LIMIT_NAME_BYTES];
	char labels[MZN_LIMIT_LABEL_BYTES];
};

enum mzn_item_kind {
	MZN_ITEM_ADDRESS = 1, /* A further address. */
	MZN_ITEM_ROUTE = 2, /* A route of the endpoint's namespace. */
};

struct mzn_item_key {
	__u64 instance; /* of the record */
	__u32 number; /* any, once in a record */
	__u32 pad;
};

/* What an endpoint has any number of. An item counts in generations of the record from `since` on, and before `until`. */
struct mzn_item {
	__u64 since;
	__u64 until; /* 0: it has no end */
	struct mzn_ip ip; /* of an address; of a route, the first one that it leads to */
	struct mzn_ip gateway; /* of a route; none: what it leads to is on the link */
	__u32 prefix_length; /* in bits of the family's own address */
	__u32 kind; /* enum mzn_item_kind */
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

enum mzn_shortcut {
	MZN_SHORTCUT_OFF = 0, /* Tunnel packets go the kernel's way alone. */
	MZN_SHORTCUT_AUTO = 1, /* Plain ones are taken out on the underlay, where kernel and underlay allow it. */
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
	__u32 shortcut; /* enum mzn_shortcut */
};

/* The transit switch, if there is one: read by its program, and by whoever puts back what it changed. */
struct mzn_switching {
	__u32 ifindex; /* of its device; 0: none */
	__u32 flags; /* enum mzn_switch_flag */
	__u32 generation; /* how often a program was put there */
};

enum mzn_wish {
	MZN_WISH_DROPS = 1, /* Frames that were dropped. */
	MZN_WISH_PASSES = 2, /* Frames that went on. */
};

/* Who reads events, and which. Its ring in `rings` has the same index. */
struct mzn_reader {
	__u64 until; /* lease: it counts before this moment of the kernel's monotonic clock, in nanoseconds; 0: never */
	__u64 owner; /* random: tells two readers apart */
	__u64 endpoint; /* instance of the one endpoint whose frames are wanted, on either side; 0: of any, and of none */
	__u32 slot; /* of that endpoint */
	__u32 wishes; /* enum mzn_wish */
	__u32 vni; /* the one that is wanted; 0: any */
	__u32 sample; /* of so many frames on a CPU one is told */
	struct mzn_ip ip; /* the one that is wanted, on either side; none: any */
	__u32 pad;
};

/* The latest lease of all readers, and of those who want frames of a kind. At zero nobody reads: programs look no further. */
struct mzn_attention {
	__u64 any;
	__u64 drops;
	__u64 passes;
};

/* What one CPU did for a reader. */
struct mzn_heard {
	__u64 found; /* frames that were wanted */
	__u64 lost; /* of those to be told: beyond the budget, or without room in the ring */
	__u64 second; /* of the budget */
	__u64 spent; /* of it, in that second */
};

enum mzn_event_flag {
	MZN_EVENT_CLAIMED = 1, /* Nobody proved the VNI. */
};

/* What became of one frame, as the program left it. */
struct mzn_event {
	__u64 time; /* nanoseconds of the kernel's monotonic clock */
	__u64 endpoint; /* instance of the endpoint that it counts for; 0: none */
	__u32 slot; /* of that endpoint */
	__u32 program; /* enum mzn_program */
	__u32 verdict; /* enum mzn_verdict */
	__u32 vni; /* 0: none is known */
	__u32 flags; /* enum mzn_event_flag */
	__u32 length; /* in bytes, as it is counted */
	__u32 captured; /* bytes of it in `data` */
	__u32 ethertype; /* in the host's order; 0: there is none */
	__u32 protocol; /* of the upper layer; 256: none */
	__u32 payload; /* offset of the upper layer's header in the frame; 0: there is none */
	struct mzn_ip source; /* none: not known */
	struct mzn_ip destination;
	__u8 data[MZN_LIMIT_EVENT_BYTES]; /* zeros behind what was captured */
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
