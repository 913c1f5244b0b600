/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The data paths of the peers, each as small as it can be: no policy, no identity, no counters. Real ones do more for
 * each packet, so these are the hardest to compare with.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { VXLAN_PORT = 4789, TTL = 64 };

/* Where an address is: on a host, or behind a device of this one. */
struct spot {
	__u32 host; /* in host order; 0: this host */
	__u32 ifindex; /* of the host's end of its veth pair */
	__u32 slot; /* of that device in `devices`; 0 is the NIC */
	__u8 mac[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct spot);
} spots SEC(".maps");

struct settings {
	__u32 tunnel; /* index of the VXLAN device */
	__u32 nic;
	__u32 own; /* address of this host, in host order */
	__u32 vni;
	__u8 nic_mac[8];
	__u8 gateway_mac[8]; /* of the other host's NIC */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} setting SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct outer {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__be32 flags;
	__be32 vni;
} __attribute__((packed));

static __always_inline struct settings *settings(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&setting, &first);
}

static __always_inline struct spot *find(void *data, void *end)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	__u32 address;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return NULL;
	address = ip->daddr;
	return bpf_map_lookup_elem(&spots, &address);
}

static __always_inline void write_outer(struct outer *outer, const struct settings *own, __u32 host, __u32 length,
					__u32 hash)
{
	struct iphdr ip = { .version = 4, .ihl = 5, .ttl = TTL, .protocol = IPPROTO_UDP };
	__u16 *words = (__u16 *)&ip;
	__u32 sum = 0;

	__builtin_memcpy(outer->eth.h_dest, own->gateway_mac, ETH_ALEN);
	__builtin_memcpy(outer->eth.h_source, own->nic_mac, ETH_ALEN);
	outer->eth.h_proto = bpf_htons(ETH_P_IP);
	ip.tot_len = bpf_htons(length + sizeof(struct outer) - ETH_HLEN);
	ip.saddr = bpf_htonl(own->own);
	ip.daddr = bpf_htonl(host);
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	ip.check = ~sum;
	outer->ip = ip;
	outer->udp.source = bpf_htons(0xc000 | (hash & 0x3fff));
	outer->udp.dest = bpf_htons(VXLAN_PORT);
	outer->udp.len = bpf_htons(length + sizeof(struct outer) - ETH_HLEN - sizeof(struct iphdr));
	outer->udp.check = 0;
	outer->flags = bpf_htonl(0x08000000);
	outer->vni = bpf_htonl(own->vni << 8);
}

static __always_inline int is_ours(const struct outer *outer, const struct settings *own)
{
	return outer->eth.h_proto == bpf_htons(ETH_P_IP) && outer->ip.protocol == IPPROTO_UDP &&
	       outer->udp.dest == bpf_htons(VXLAN_PORT) && outer->vni == bpf_htonl(own->vni << 8);
}

/* -- Cilium's style: the host's end of a veth pair, ingress; and ingress of a VXLAN device in metadata mode ------- */

static __always_inline int style(struct __sk_buff *skb, bool is_netkit)
{
	struct spot *to = find((void *)(long)skb->data, (void *)(long)skb->data_end);
	struct bpf_tunnel_key key = { .tunnel_ttl = TTL };
	struct settings *own = settings();

	if (!to || !own || bpf_skb_store_bytes(skb, 0, to->mac, ETH_ALEN, 0))
		return TC_ACT_SHOT;
	if (!to->host) /* what sends into a netkit device comes out of its peer */
		return is_netkit ? bpf_redirect(to->ifindex, 0) : bpf_redirect_peer(to->ifindex, 0);
	key.tunnel_id = own->vni;
	key.remote_ipv4 = to->host;
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX))
		return TC_ACT_SHOT;
	return bpf_redirect(own->tunnel, 0);
}

SEC("tc") int style_from(struct __sk_buff *skb)
{
	return style(skb, false);
}

SEC("tc") int netkit_from(struct __sk_buff *skb)
{
	return style(skb, true);
}

SEC("tc") int style_to(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};
	struct settings *own = settings();
	struct spot *to;

	if (!own || bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0) || key.tunnel_id != own->vni)
		return TC_ACT_SHOT;
	to = find((void *)(long)skb->data, (void *)(long)skb->data_end);
	if (!to || to->host || bpf_skb_store_bytes(skb, 0, to->mac, ETH_ALEN, 0))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(to->ifindex, 0);
}

/* -- the same in place: the header is written and taken off in the packet, past the VXLAN device ------------------ */

SEC("tc") int in_place_from(struct __sk_buff *skb)
{
	struct spot *to = find((void *)(long)skb->data, (void *)(long)skb->data_end);
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
		      BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH |
		      BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	struct settings *own = settings();
	struct ethhdr inner;
	struct outer outer;
	__u32 length = skb->len;

	if (!to || !own)
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, 0, to->mac, ETH_ALEN, 0))
		return TC_ACT_SHOT;
	if (!to->host)
		return bpf_redirect_peer(to->ifindex, 0);
	if (bpf_skb_load_bytes(skb, 0, &inner, sizeof(inner)))
		return TC_ACT_SHOT;
	write_outer(&outer, own, to->host, length, bpf_get_hash_recalc(skb));
	if (bpf_skb_adjust_room(skb, sizeof(outer), BPF_ADJ_ROOM_MAC, flags) ||
	    bpf_skb_store_bytes(skb, 0, &outer, sizeof(outer), 0) ||
	    bpf_skb_store_bytes(skb, sizeof(outer), &inner, sizeof(inner), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(own->nic, 0);
}

SEC("tc") int in_place_to(struct __sk_buff *skb)
{
	struct outer *outer = (void *)(long)skb->data;
	struct settings *own = settings();
	struct ethhdr inner;
	struct spot *to;

	if ((void *)(outer + 1) > (void *)(long)skb->data_end || !own || !is_ours(outer, own))
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, sizeof(*outer), &inner, sizeof(inner)) ||
	    bpf_skb_adjust_room(skb, -(int)sizeof(*outer), BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return TC_ACT_SHOT;
	to = find((void *)(long)skb->data, (void *)(long)skb->data_end);
	if (!to || to->host)
		return TC_ACT_SHOT;
	__builtin_memcpy(inner.h_dest, to->mac, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, 0, &inner, sizeof(inner), 0))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(to->ifindex, 0);
}

/* -- the wiring of the seed: XDP in generic mode writes the header, and redirects by a map of devices ------------- */

SEC("xdp") int wiring_from(struct xdp_md *packet)
{
	void *data = (void *)(long)packet->data, *end = (void *)(long)packet->data_end;
	struct spot *to = find(data, end);
	struct settings *own = settings();
	struct iphdr *ip = data + ETH_HLEN;
	__u32 length, hash;
	struct outer *outer;

	if (!to || !own || (void *)(ip + 1) > end)
		return XDP_DROP;
	__builtin_memcpy(data, to->mac, ETH_ALEN);
	if (!to->host)
		return bpf_redirect_map(&devices, to->slot, 0);
	length = bpf_ntohs(ip->tot_len) + ETH_HLEN;
	hash = ip->saddr ^ ip->daddr;
	if (bpf_xdp_adjust_head(packet, -(int)sizeof(*outer)))
		return XDP_DROP;
	outer = (void *)(long)packet->data;
	if ((void *)(outer + 1) > (void *)(long)packet->data_end)
		return XDP_DROP;
	write_outer(outer, own, to->host, length, hash);
	return bpf_redirect_map(&devices, 0, 0);
}

SEC("xdp") int wiring_to(struct xdp_md *packet)
{
	struct outer *outer = (void *)(long)packet->data;
	struct settings *own = settings();
	void *data, *end;
	struct spot *to;

	if ((void *)(outer + 1) > (void *)(long)packet->data_end || !own || !is_ours(outer, own))
		return XDP_PASS;
	if (bpf_xdp_adjust_head(packet, sizeof(*outer)))
		return XDP_DROP;
	data = (void *)(long)packet->data;
	end = (void *)(long)packet->data_end;
	to = find(data, end);
	if (!to || to->host || data + ETH_HLEN > end)
		return XDP_DROP;
	__builtin_memcpy(data, to->mac, ETH_ALEN);
	return bpf_redirect_map(&devices, to->slot, 0);
}

/*
 * For the bounces: the cable's other end, which sends and counts. The kernel sends the same memory again and again, in
 * which a host on the way may have written, so the frame is put there each time.
 */
enum { SENT_BYTES = 128 };

struct traffic {
	__u8 frame[SENT_BYTES];
	__u64 arrived;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

SEC("xdp") int send_it(struct xdp_md *packet)
{
	__u32 zero = 0;
	struct traffic *of = bpf_map_lookup_elem(&traffic, &zero);
	__u8 *data = (void *)(long)packet->data;

	if (!of || (void *)(data + SENT_BYTES) > (void *)(long)packet->data_end)
		return XDP_ABORTED;
	__builtin_memcpy(data, of->frame, SENT_BYTES);
	return XDP_TX;
}

SEC("xdp") int count_it(struct xdp_md *packet __attribute__((unused)))
{
	__u32 zero = 0;
	struct traffic *of = bpf_map_lookup_elem(&traffic, &zero);

	if (of)
		of->arrived++;
	return XDP_DROP;
}

char license_name[] SEC("license") = "Dual BSD/GPL";
