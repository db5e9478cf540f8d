/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Sessions that survive a route change: what arrives (XDP), what leaves (tc). Linux 5.10.
 *
 * Each packet to the service says which site owns its connection (encoding.h). Ours pass, those of other sites go to them, and what is
 * not understood is the kernel's, as if there were no program.
 */
#include "arrive.h"
#ifdef COOKIES
#include "answer.h"
#endif
#include "leave.h"

char _license[] SEC("license") = "Dual MIT/GPL";

/* A packet of `site`'s; `counter` if it leaves for there. XDP_ABORTED: no such site. */
static __always_inline int to_owner(struct xdp_md *ctx, __u8 owner, __u64 hash, __u32 wall, enum counter counter)
{
	struct site *site = site_of(owner);
	if (!site || site->state == SITE_UNKNOWN)
		return XDP_ABORTED;
	if (site->state == SITE_DOWN) {
		/* At once: the kernel has no such connection and resets it. */
		count(COUNT_OWNER_DOWN);
		return XDP_PASS;
	}
	struct route route = { .hash = hash, .to = owner, .kind = KIND_DATA, .origin = config.site, .counter = counter, .wall_ms = wall };
	return forward_to(ctx, site, &route);
}

/* What the client sends arrives here by itself: replies need no detour. */
static __noinline void came_here(struct xdp_md *ctx)
{
	struct identity id = {};
	if (identify(ctx, ETHERNET, false, &id))
		came_through(&id.flow, config.site);
}

/* Replies that travel through another site need room on their way, too. */
static __noinline void clamp_syn(struct xdp_md *ctx, __u32 l4, __u32 headers)
{
	struct tcphdr *tcp = (void *)(long)ctx->data + (l4 & 255);
	__be16 *option = (void *)(tcp + 1);
	if ((void *)(option + 2) > (void *)(long)ctx->data_end || tcp->doff < 6 || option[0] != MAXIMUM_SEGMENT_SIZE)
		return;
	__be16 most = bpf_htons(segment_max(headers));
	if (bpf_ntohs(option[1]) <= bpf_ntohs(most))
		return;
	tcp->check = checksum_replace(tcp->check, option[1], most);
	option[1] = most;
}

/* Hands a new connection to the site that takes ours while we drain; XDP_ABORTED: we take it. */
static __always_inline int hand_over(struct xdp_md *ctx, __u64 hash)
{
	__u8 to = *(volatile __u8 *)&live.drain_to;
	if (to == NO_SITE || !(sites_up() & bit(to)))
		return XDP_ABORTED;
	struct route route = { .hash = hash, .to = to, .kind = KIND_NEW, .origin = config.site, .counter = COUNT_FORWARD_NEW };
	route.wall_ms = wall_ms();
	return forward(ctx, &route);
}

/* A new connection, bare, is ours: answered by a cookie where that can be (adopt.bpf.c), else by the kernel. */
static __always_inline int take(struct xdp_md *ctx)
{
#ifdef COOKIES
	return answer_syn(ctx);
#else
	(void)ctx;
	return XDP_PASS;
#endif
}

static __always_inline int open(struct xdp_md *ctx, __u32 l4, __u64 hash)
{
	count(COUNT_SYN);
	int action = hand_over(ctx, hash);
	if (action != XDP_ABORTED)
		return action;
	if (config.reply_through)
		clamp_syn(ctx, l4, l4 - ETHERNET + sizeof(struct tcphdr));
#ifndef COOKIES
	/* What answers it reads its options anyway, and counts. */
	if (find_echo(ctx, l4))
		count(COUNT_SYN_TIMESTAMPS);
	else
		note_opening(ctx, l4, hash);
#endif
	return take(ctx);
}

static __always_inline int shim(struct xdp_md *ctx, __u8 family)
{
	int action = arrive(ctx, family);
	if (action != NEW_CONNECTION)
		return action;
	/* Where replies must return as their clients' packets came, the kernel's do. */
	return config.reply_through ? XDP_PASS : take(ctx);
}

/* Who may own a connection whose timestamps nobody vouches for. With cookies, some connections have timestamps of the kernel's own. */
static __always_inline __u32 whom_to_ask(__be32 echo, __u32 wall, __u64 hash)
{
	__u8 owner = timestamp_decode_old(bpf_ntohl(echo), wall, hash);
	return owner == NO_SITE && config.cookies ? SOMEBODY : owner;
}

static __always_inline int tcp(struct xdp_md *ctx, __u32 l4, __u64 hash)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = data + l4;
	__be32 *options = (void *)(tcp + 1);
	if ((void *)options > end)
		return XDP_PASS;
	if ((tcp_flags(tcp) & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return open(ctx, l4, hash);
	__u32 at = 0, echo = 0;
	if ((void *)(options + 3) <= end && options[0] == NOP_NOP_TIMESTAMP && tcp->doff >= 8) {
		at = l4 + sizeof(*tcp) + 8;
		echo = options[2];
	} else {
		at = find_echo(ctx, l4);
		__be32 *found = at ? word_at(ctx, at) : NULL;
		if (found)
			echo = *found;
	}
	if (!echo)
		return ask(ctx, ANYBODY);
	__u32 wall = wall_ms();
	__u8 owner = timestamp_decode(bpf_ntohl(echo), wall, hash);
	/* Ours by the clock they are made from, where the wall clock was set since. */
	if (owner == NO_SITE && timestamp_decode(bpf_ntohl(echo), clock_ms(), hash) == config.site)
		owner = config.site;
	if (owner == config.site) {
		count(COUNT_LOCAL_TIMESTAMP);
		if (config.reply_through)
			came_here(ctx);
		if (config.rewrite)
			restore(ctx, l4, at, hash);
		return XDP_PASS;
	}
	int action = owner == NO_SITE ? XDP_ABORTED : to_owner(ctx, owner, hash, wall, COUNT_FORWARD_TIMESTAMP);
	return action == XDP_ABORTED ? ask(ctx, whom_to_ask(echo, wall, hash)) : action;
}

static __always_inline bool is_quic(__be16 port)
{
	for (__u32 i = 0; i < PORTS_MAX && i < config.count_quic_ports; i++)
		if (port == config.quic_ports[i])
			return true;
	return false;
}

/* The site in a connection identifier of ours. */
static __always_inline __u8 id_owner(const __u8 *id)
{
	for (__u32 i = 0; i < ID_KEYS_MAX && i < config.count_id_keys; i++)
		if (id[0] >> ID_LENGTH_BITS == config.id_rotations[i])
			return id_decode(config.id_keys[i], config.id_rotations[i], id);
	return NO_SITE;
}

/* QUIC (RFC 9000 §17): where the identifier is can be seen, everything else is encrypted. */
static __always_inline int quic(struct xdp_md *ctx, __u32 l4, __u64 hash)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct udphdr *udp = data + l4;
	__u8 *first = (void *)(udp + 1), *id = first + 1;
	if ((void *)(first + 1) > end)
		return XDP_PASS;
	bool is_long = *first & 0x80;
	bool has_id = true;
	if (is_long) {
		if ((void *)(first + 6) > end)
			return XDP_PASS;
		has_id = first[5] == ID_BYTES;
		id = first + 6;
	}
	__u8 owner = NO_SITE;
	if (has_id && (void *)(id + ID_BYTES) <= end)
		owner = id_owner(id);
	if (owner == config.site) {
		count(COUNT_LOCAL_ID);
		if (config.reply_through)
			came_here(ctx);
		return XDP_PASS;
	}
	int action = XDP_ABORTED;
	if (owner != NO_SITE)
		action = to_owner(ctx, owner, hash, wall_ms(), COUNT_FORWARD_ID);
	if (action != XDP_ABORTED)
		return action;
	count(COUNT_QUIC_NEW);
	if (is_long)
		action = hand_over(ctx, hash);
	return action == XDP_ABORTED ? XDP_PASS : action;
}

/* An error on the way of a packet of ours, or of another site's: the packet it quotes tells. */
__noinline int too_big(struct xdp_md *ctx)
{
	struct identity id = {};
	if (!identify(ctx, ETHERNET, false, &id) || id.protocol != IPPROTO_ICMP)
		return XDP_PASS;
	__u8 owner = NO_SITE;
	/* What is quoted has our TSval, four octets before the TSecr. */
	__u32 at = find_echo(ctx, id.l4);
	__be32 *value = at ? word_at(ctx, at - 4) : NULL;
	if (value)
		owner = timestamp_decode(bpf_ntohl(*value), wall_ms(), id.hash);
	if (owner == NO_SITE) {
		__u8 *cached = bpf_map_lookup_elem(&flows, &id.flow);
		if (cached)
			owner = *cached;
	}
	if (owner == config.site)
		return XDP_PASS;
	int action = owner == NO_SITE ? XDP_ABORTED : to_owner(ctx, owner, id.hash, wall_ms(), COUNT_FORWARD_ICMP);
	return action == XDP_ABORTED ? ask(ctx, ANYBODY) : action;
}

static __always_inline int ingress_v4(struct xdp_md *ctx, void *data, void *end)
{
	struct iphdr *ip = data + ETHERNET;
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > end)
		return XDP_PASS;
	if (!is_service_v4(ip->daddr)) {
		if (ip->daddr == config.unicast_v4 && ip->protocol == IPPROTO_UDP && ip->ihl == 5 &&
		    !(ip->frag_off & IP_FRAGMENT) && udp->dest == config.port)
			return shim(ctx, 4);
		return XDP_PASS;
	}
	if (ip->ihl != 5)
		return XDP_PASS;
	if (ip->frag_off & IP_FRAGMENT) {
		count(COUNT_FRAGMENT);
		return XDP_PASS;
	}
	__u32 ports;
	__builtin_memcpy(&ports, udp, sizeof(ports));
	const __u32 l4 = ETHERNET + sizeof(*ip);
	if (ip->protocol == IPPROTO_TCP && (config.rewrite || config.cookies))
		return tcp(ctx, l4, flow_hash_v4(config.flow_key, ip->saddr, ip->daddr, ports));
	if (ip->protocol == IPPROTO_UDP && is_quic(udp->dest))
		return quic(ctx, l4, flow_hash_v4(config.flow_key, ip->saddr, ip->daddr, ports));
	if (ip->protocol == IPPROTO_ICMP && (config.rewrite || config.cookies) && is_too_big((void *)udp, 4))
		return too_big(ctx);
	return XDP_PASS;
}

static __always_inline bool is_unicast_v6(const __u32 address[4])
{
	return address[0] == config.unicast_v6[0] && address[1] == config.unicast_v6[1] &&
	       address[2] == config.unicast_v6[2] && address[3] == config.unicast_v6[3];
}

static __always_inline int ingress_v6(struct xdp_md *ctx, void *data, void *end)
{
	struct ipv6hdr *ip = data + ETHERNET;
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > end)
		return XDP_PASS;
	__u32 client[4], service[4], ports;
	__builtin_memcpy(client, &ip->saddr, sizeof(client));
	__builtin_memcpy(service, &ip->daddr, sizeof(service));
	__builtin_memcpy(&ports, udp, sizeof(ports));
	if (!is_service_v6(service)) {
		if (is_unicast_v6(service) && ip->nexthdr == IPPROTO_UDP && udp->dest == config.port)
			return shim(ctx, 6);
		return XDP_PASS;
	}
	const __u32 l4 = ETHERNET + sizeof(*ip);
	switch (ip->nexthdr) {
	case IPPROTO_TCP:
		if (config.rewrite || config.cookies)
			return tcp(ctx, l4, flow_hash_v6(config.flow_key, client, service, ports));
		break;
	case IPPROTO_UDP:
		if (is_quic(udp->dest))
			return quic(ctx, l4, flow_hash_v6(config.flow_key, client, service, ports));
		break;
	case IPPROTO_ICMPV6:
		if ((config.rewrite || config.cookies) && is_too_big((void *)udp, 6))
			return too_big(ctx);
		break;
	case 44: /* Fragment */
		count(COUNT_FRAGMENT);
		break;
	}
	return XDP_PASS;
}

static __always_inline int arrives(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethernet *ethernet = data;
	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->protocol == bpf_htons(ETH_P_IP))
		return ingress_v4(ctx, data, end);
	if (ethernet->protocol == bpf_htons(ETH_P_IPV6))
		return ingress_v6(ctx, data, end);
	return XDP_PASS;
}

SEC("xdp")
int ubique_ingress(struct xdp_md *ctx)
{
	return arrives(ctx);
}

/* For the other end of a veth, which else loses what XDP_TX sends. */
SEC("xdp")
int ubique_pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

/* Run once by the loader: the lower 32 bits of live.tick_at_0. */
SEC("xdp")
int ubique_clock(struct xdp_md *ctx)
{
	(void)ctx;
	return bpf_jiffies64() - bpf_ktime_get_ns() / config.tick_ns + 1;
}
