/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What leaves: timestamps that say our site, segments that leave room, replies that return through another site. */
#pragma once

#include "owner.h"

/* What a client may send must leave room for forwarding. */
static __always_inline void clamp(struct __sk_buff *skb, __u32 l4, __be16 old, __u32 headers)
{
	__be16 new = bpf_htons(segment_max(headers));
	if (bpf_ntohs(old) <= bpf_ntohs(new))
		return;
	bpf_l4_csum_replace(skb, l4 + offsetof(struct tcphdr, check), old, new, sizeof(new));
	bpf_skb_store_bytes(skb, l4 + sizeof(struct tcphdr) + 2, &new, sizeof(new), 0);
}

#define TIMESTAMP bpf_htons(0x080a)

/* `headers`: octets of IP and TCP header without options. */
static __always_inline void rewrite(struct __sk_buff *skb, __u32 l4, __u64 hash, __u32 headers)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct tcphdr *tcp = data + l4;
	__be16 *option = (void *)(tcp + 1);
	if ((void *)(option + 6) > end || tcp->doff < 6)
		return;
	__u32 at = 0;
	__be16 segment = 0;
	if (option[1] == TIMESTAMP && tcp->doff >= 8) {
		at = l4 + sizeof(*tcp) + 4;
	} else if (option[0] == MAXIMUM_SEGMENT_SIZE) {
		/* A SYN-ACK: Linux sends MSS, then SACK-permitted or NOPs, then timestamps. */
		segment = option[1];
		if (option[3] == TIMESTAMP && tcp->doff >= 9)
			at = l4 + sizeof(*tcp) + 8;
	}
	if (at && config.rewrite) {
		__be32 *value = data + at;
		if ((void *)(value + 1) > end)
			return;
		__be32 old = *value;
		__be32 new = bpf_htonl(bpf_ntohl(old) + timestamp_encode(config.clock_base_ms, config.site, hash));
		bpf_l4_csum_replace(skb, l4 + offsetof(struct tcphdr, check), old, new, sizeof(new));
		bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
	}
	if (segment)
		clamp(skb, l4, segment, headers);
}

#define GROW_V4 (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_FIXED_GSO)
#define GROW_V6 (BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_FIXED_GSO)

static __always_inline bool wrap(struct __sk_buff *skb, const struct site *site, const struct route *route, const int family)
{
	__u32 length = skb->len - ETHERNET + OVERHEAD(family);
	/* One segment of many: those that the device makes of it are as long as the clamp allows. */
	if (!skb->gso_segs && length > config.mtu)
		return false;
	if (bpf_skb_adjust_room(skb, OVERHEAD(family), BPF_ADJ_ROOM_MAC, family == 4 ? GROW_V4 : GROW_V6))
		return false;
	__u64 words[TEMPLATE_WORDS + 1];
	__u8 *octets = (void *)words;
#pragma unroll
	for (int i = 0; i < TEMPLATE_WORDS; i++)
		words[i] = site->template[i];
	fill_length(octets + OUTER_IP, length, family);
	__u64 udp_and_shim[4];
	fill_udp_and_shim(udp_and_shim, route, length - (OUTER_UDP(family) - OUTER_IP));
	return !bpf_skb_store_bytes(skb, 0, octets, OUTER_UDP(family), 0) &&
	       !bpf_skb_store_bytes(skb, OUTER_UDP(family), udp_and_shim, sizeof(udp_and_shim), 0);
}

/* Octets of sequence numbers that a segment takes (RFC 9293 §3.4), and the first of them; 0: there is nothing to send again. */
static __always_inline __u32 sequence_length(struct __sk_buff *skb, __u32 l4, __u32 *first)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct tcphdr *tcp = data + l4;
	if ((void *)(tcp + 1) > end)
		return 0;
	__u8 flags = tcp_flags(tcp);
	*first = bpf_ntohl(tcp->seq);
	return skb->len - l4 - tcp->doff * 4 + !!(flags & TCP_SYN) + !!(flags & TCP_FIN);
}

/* After `site`, round and round: those that are up and our own. */
static __always_inline __u8 next_way(__u8 site)
{
	__u64 all = sites_up() | bit(config.site), later = all & ~(bit(site) | (bit(site) - 1));
	return lowest(later ? later : all);
}

/*
 * The site that a reply goes through, our own: none. What is sent again, while nothing came from the client, was lost: the way may be one
 * that the client's router no longer takes the service's packets from, and only another one will make the client tell.
 */
static __always_inline __u8 way_of(struct __sk_buff *skb, const struct flow *flow, __u32 l4, bool is_tcp)
{
	struct way *way = bpf_map_lookup_elem(&returns, flow);
	__u32 first = 0, length = is_tcp ? sequence_length(skb, l4, &first) : 0;
	if (!way) {
		struct way new = { .next = first + length, .through = config.site, .sent = true };
		if (length)
			bpf_map_update_elem(&returns, flow, &new, BPF_ANY);
		return config.site;
	}
	if (length) {
		bool again = way->sent && (__s32)(first - way->next) < 0;
		if (again)
			way->through = next_way(way->through);
		else
			way->next = first + length;
		way->sent = true;
	}
	return way->through;
}

/* A reply returns through the site that its client's packets came through, if they do. */
static __noinline int return_through(struct __sk_buff *skb, const struct flow *flow, __u64 hash, __u32 l4, bool is_tcp)
{
	__u8 through = way_of(skb, flow, l4, is_tcp);
	struct site *site = through == config.site ? NULL : site_of(through);
	if (!site || site->state != SITE_UP || !site->interface)
		return TC_ACT_UNSPEC;
	struct route route = { .hash = hash, .to = through, .kind = KIND_REPLY, .origin = through, .wall_ms = wall_ms() };
	if (!(site->family == 4 ? wrap(skb, site, &route, 4) : wrap(skb, site, &route, 6)))
		return TC_ACT_UNSPEC;
	count(COUNT_FORWARD_REPLY);
	return site->interface == skb->ifindex ? TC_ACT_UNSPEC : bpf_redirect(site->interface, 0);
}

static __always_inline int leaves_v4(struct __sk_buff *skb, void *data, void *end)
{
	struct iphdr *ip = data + ETHERNET;
	__u32 *ports = (void *)(ip + 1);
	if ((void *)(ports + 1) > end || ip->ihl != 5 || !is_service_v4(ip->saddr))
		return TC_ACT_UNSPEC;
	bool is_tcp = ip->protocol == IPPROTO_TCP;
	if (!is_tcp && !(config.reply_through && ip->protocol == IPPROTO_UDP))
		return TC_ACT_UNSPEC;
	struct flow flow = { .family = 4, .client = { ip->daddr }, .service = { ip->saddr }, .ports = *ports << 16 | *ports >> 16 };
	__u64 hash = flow_hash_v4(config.flow_key, flow.client[0], flow.service[0], flow.ports);
	if (is_tcp)
		rewrite(skb, ETHERNET + sizeof(*ip), hash, sizeof(*ip) + sizeof(struct tcphdr));
	return config.reply_through ? return_through(skb, &flow, hash, ETHERNET + sizeof(*ip), is_tcp) : TC_ACT_UNSPEC;
}

static __always_inline int leaves_v6(struct __sk_buff *skb, void *data, void *end)
{
	struct ipv6hdr *ip = data + ETHERNET;
	__u32 *ports = (void *)(ip + 1);
	if ((void *)(ports + 1) > end)
		return TC_ACT_UNSPEC;
	bool is_tcp = ip->nexthdr == IPPROTO_TCP;
	if (!is_tcp && !(config.reply_through && ip->nexthdr == IPPROTO_UDP))
		return TC_ACT_UNSPEC;
	struct flow flow = { .family = 6, .ports = *ports << 16 | *ports >> 16 };
	__builtin_memcpy(flow.client, &ip->daddr, sizeof(flow.client));
	__builtin_memcpy(flow.service, &ip->saddr, sizeof(flow.service));
	if (!is_service_v6(flow.service))
		return TC_ACT_UNSPEC;
	__u64 hash = flow_hash_v6(config.flow_key, flow.client, flow.service, flow.ports);
	if (is_tcp)
		rewrite(skb, ETHERNET + sizeof(*ip), hash, sizeof(*ip) + sizeof(struct tcphdr));
	return config.reply_through ? return_through(skb, &flow, hash, ETHERNET + sizeof(*ip), is_tcp) : TC_ACT_UNSPEC;
}

SEC("tc")
int ubique_egress(struct __sk_buff *skb)
{
	/* Headers of what a host sends are in its first piece. */
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet *ethernet = data;
	if ((void *)(ethernet + 1) > end)
		return TC_ACT_UNSPEC;
	if (ethernet->protocol == bpf_htons(ETH_P_IP))
		return leaves_v4(skb, data, end);
	if (ethernet->protocol == bpf_htons(ETH_P_IPV6))
		return leaves_v6(skb, data, end);
	return TC_ACT_UNSPEC;
}
