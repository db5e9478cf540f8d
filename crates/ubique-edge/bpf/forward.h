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

/* Where a packet goes, and what is said with it. */
struct route {
	__u64 hash;
	/* Big-endian: as the shim has it. */
	__be64 asked;
	__u32 wall_ms;
	__u8 kind;
	__u8 origin;
	/* enum counter, when it left */
	__u8 counter;
	__u8 to;
};

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

/* UDP header and shim; `length`: of UDP. */
static __always_inline void fill_udp_and_shim(__u64 *to, const struct route *route, __u32 length)
{
	/* The source port, so that routers spread connections, and receivers their queues. */
	__u16 source = bpf_htons(0xc000 | (route->hash >> 16 & 0x3fff));
	__u64 head = shim_head(route->kind, config.site, route->origin, route->to, route->wall_ms);
	to[0] = source | (__u64)config.port << 16 | (__u64)bpf_htons(length) << 32;
	to[1] = head;
	to[2] = route->asked;
	to[3] = shim_tag(config.shim_key, route->kind, head, route->asked, route->hash);
}

/* Into an IP header of a template, which says no length yet; `length`: octets of the packet. */
static __always_inline void fill_length(void *header, __u32 length, const int family)
{
	if (family == 4) {
		struct iphdr *ip = header;
		__be16 total = bpf_htons(length);
		__u32 sum = ip->check + total;
		ip->tot_len = total;
		ip->check = ~(sum + (sum >> 16));
	} else {
		struct ipv6hdr *ip = header;
		ip->payload_len = bpf_htons(length - sizeof(*ip));
	}
}

/* What stands in front; `length`: octets of the outer IP packet. Zero UDP checksums: the tag vouches for the shim (RFC 6935). */
static __always_inline bool fill_outer(struct xdp_md *ctx, const struct site *site, const struct route *route, __u32 length, const int family)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + OUTER_END(family) > end)
		return false;
	/* Whole words: what is copied too much is written over below. */
	__u64 *words = data;
#pragma unroll
	for (int i = 0; i < (family == 4 ? 5 : 7); i++)
		words[i] = site->template[i];
	fill_length(data + OUTER_IP, length, family);
	fill_udp_and_shim(data + OUTER_UDP(family), route, length - (OUTER_UDP(family) - OUTER_IP));
	return true;
}

static __always_inline int leave(struct xdp_md *ctx, __u32 interface)
{
	return interface == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(interface, 0);
}

/* Sends the packet on, as `route` says, to a site that is up. */
static __always_inline int forward_to(struct xdp_md *ctx, const struct site *site, const struct route *route)
{
	__u32 length = ip_length((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	if (!site->interface) {
		count(COUNT_NO_ROUTE);
		return XDP_DROP;
	}
	bool v4 = site->family == 4;
	__u32 overhead = v4 ? OVERHEAD(4) : OVERHEAD(6);
	length += overhead;
	if (length > config.mtu) {
		count(COUNT_TOO_BIG);
		return XDP_DROP;
	}
	if (bpf_xdp_adjust_head(ctx, -(int)overhead)) {
		count(COUNT_NO_ROUTE);
		return XDP_DROP;
	}
	if (!(v4 ? fill_outer(ctx, site, route, length, 4) : fill_outer(ctx, site, route, length, 6)))
		return XDP_DROP;
	count(route->counter);
	return leave(ctx, site->interface);
}

/* The same, to whatever site. */
static __noinline int forward(struct xdp_md *ctx, const struct route *route)
{
	struct site *site = site_of(route->to);
	if (!site || site->state != SITE_UP) {
		count(COUNT_NO_ROUTE);
		return XDP_DROP;
	}
	return forward_to(ctx, site, route);
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
