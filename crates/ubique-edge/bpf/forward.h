/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* A packet on its way to another site, and off the wire again. */
#pragma once

#include "packet.h"

/* Where things stand in a frame from one site to another, as in frames of its clients. */
#define OUTER_IP ETHERNET
#define OUTER_UDP(family) (OUTER_IP + ((family) == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)))
#define OUTER_SHIM(family) (OUTER_UDP(family) + sizeof(struct udphdr))
#define OUTER_END(family) (OUTER_SHIM(family) + sizeof(struct shim))

/* Octets more than the packet had. */
#define OVERHEAD(family) (OUTER_END(family) - ETHERNET)

#define HOPS 64

/* Where a packet goes, and what is said with it. */
struct route {
	__u64 hash;
	__u64 asked;
	__u8 to;
	__u8 kind;
	__u8 origin;
	/* enum counter, when it left */
	__u8 counter;
	__u8 padding[4];
};

static __always_inline void fill_ethernet(struct ethernet *to, const struct site *site, __be16 protocol)
{
#pragma unroll
	for (int i = 0; i < MAC_WORDS; i++) {
		to->destination[i] = site->destination_mac[i];
		to->source[i] = site->source_mac[i];
	}
	to->protocol = protocol;
}

/* Zero checksums: the tag vouches for the shim, and the packet has its own (RFC 6935). */
static __always_inline void fill_udp(struct udphdr *udp, __u32 length, __u64 hash)
{
	/* So that routers spread connections, and receivers their queues. */
	udp->source = bpf_htons(0xc000 | (hash >> 16 & 0x3fff));
	udp->dest = config.port;
	udp->len = bpf_htons(length);
	udp->check = 0;
}

static __always_inline void fill_shim(struct shim *to, const struct route *route)
{
	struct shim shim = {
		.version_kind = SHIM_VERSION << 4 | route->kind,
		.sender = config.site,
		.origin = route->origin,
		.wall_ms = bpf_htonl(wall_ms()),
		.asked = bpf_cpu_to_be64(route->asked),
	};
	shim.tag = shim_tag(config.shim_key, &shim, route->hash);
	*to = shim;
}

static __always_inline __u16 checksum_v4(const struct iphdr *ip)
{
	const __u16 *word = (const void *)ip;
	__u32 sum = 0;
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += word[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline void fill_v4(struct iphdr *to, const struct site *site, __u32 length)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(length),
		.frag_off = bpf_htons(0x4000),
		.ttl = HOPS,
		.protocol = IPPROTO_UDP,
		.saddr = site->source[0],
		.daddr = site->destination[0],
	};
	ip.check = checksum_v4(&ip);
	*to = ip;
}

static __always_inline void fill_v6(struct ipv6hdr *ip, const struct site *site, __u32 length)
{
	*(__be32 *)ip = bpf_htonl(0x60000000);
	ip->payload_len = bpf_htons(length);
	ip->nexthdr = IPPROTO_UDP;
	ip->hop_limit = HOPS;
	__builtin_memcpy(&ip->saddr, site->source, 16);
	__builtin_memcpy(&ip->daddr, site->destination, 16);
}

/* Octets of the IP packet at the beginning of a frame, as it says itself: short frames are padded. */
static __always_inline __u32 ip_length(void *data, void *end)
{
	struct iphdr *v4 = data + ETHERNET;
	if ((void *)(v4 + 1) > end)
		return 0;
	if (*(__u8 *)v4 >> 4 == 4)
		return bpf_ntohs(v4->tot_len);
	struct ipv6hdr *v6 = (void *)v4;
	return bpf_ntohs(v6->payload_len) + sizeof(*v6);
}

static __always_inline int leave(struct xdp_md *ctx, __u32 interface)
{
	return interface == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(interface, 0);
}

/* `length`: octets of the outer IP packet. */
static __always_inline bool fill_outer(struct xdp_md *ctx, const struct site *site, const struct route *route, __u32 length, const int family)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + OUTER_END(family) > end)
		return false;
	fill_ethernet(data, site, family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6));
	if (family == 4)
		fill_v4(data + OUTER_IP, site, length);
	else
		fill_v6(data + OUTER_IP, site, length - sizeof(struct ipv6hdr));
	fill_udp(data + OUTER_UDP(family), length - (OUTER_UDP(family) - OUTER_IP), route->hash);
	fill_shim(data + OUTER_SHIM(family), route);
	return true;
}

/* Sends the packet on, as `route` says. */
static __noinline int forward(struct xdp_md *ctx, const struct route *route)
{
	struct site *site = site_of(route->to);
	__u32 length = ip_length((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	if (!site || site->state != SITE_UP || !site->interface) {
		count(COUNT_NO_ROUTE);
		return XDP_DROP;
	}
	bool v4 = site->family == 4;
	__u32 overhead = v4 ? OVERHEAD(4) : OVERHEAD(6);
	if (!length || length + overhead > config.mtu) {
		count(COUNT_TOO_BIG);
		return XDP_DROP;
	}
	if (bpf_xdp_adjust_head(ctx, -(int)overhead)) {
		count(COUNT_NO_ROUTE);
		return XDP_DROP;
	}
	length += overhead;
	if (!(v4 ? fill_outer(ctx, site, route, length, 4) : fill_outer(ctx, site, route, length, 6)))
		return XDP_DROP;
	count(route->counter);
	return leave(ctx, site->interface);
}

/* Takes off what a site put before the packet: `overhead` octets. */
static __always_inline bool unwrap(struct xdp_md *ctx, __u32 overhead, __u8 family)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethernet *ethernet = data;
	if ((void *)(ethernet + 1) > end)
		return false;
	struct ethernet saved = *ethernet;
	if (bpf_xdp_adjust_head(ctx, overhead))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ethernet = data;
	if ((void *)(ethernet + 1) > end)
		return false;
	saved.protocol = family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	*ethernet = saved;
	return true;
}
