/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What other sites send. */
#pragma once

#include "owner.h"

/* What no XDP_… is: handed over to us, and bare now. */
#define NEW_CONNECTION 0x100

/* Tells the agent, which tells the site that asked. */
static __always_inline void tell_found(const struct flow *flow, __u8 origin)
{
	struct found *note = bpf_ringbuf_reserve(&found, sizeof(*note), 0);
	if (!note)
		return;
	note->flow = *flow;
	note->origin = origin;
	__builtin_memset(note->padding, 0, sizeof(note->padding));
	bpf_ringbuf_submit(note, 0);
}

/* A packet that somebody asks about, bare again. A site that remembers us as its owner has not asked itself: it need not be told again. */
static __always_inline int probed(struct xdp_md *ctx, const struct identity *id, const struct shim *shim)
{
	__u64 asked = bpf_be64_to_cpu(shim->asked);
	count(COUNT_SHIM_PROBE);
	struct said said = {};
	if (has_socket(ctx, id) || (config.cookies && read_said(ctx, id, &said) && said.is_cookie)) {
		count(COUNT_SHIM_PROBE_MINE);
		if (asked & bit(shim->origin) || shim->sender != shim->origin)
			tell_found(&id->flow, shim->origin);
		return deliver(ctx, id, 0);
	}
	asked |= bit(config.site);
	__u64 left = sites_up() & ~asked & ~bit(shim->origin);
	struct route route = { .hash = id->hash, .origin = shim->origin, .counter = COUNT_FORWARD_PROBE, .wall_ms = wall_ms() };
	/* Nobody is left: the kernel of the site where the client's packet arrived decides. */
	route.kind = left ? KIND_PROBE : KIND_DATA;
	route.to = left ? lowest(left) : shim->origin;
	route.asked = left ? bpf_cpu_to_be64(asked | bit(route.to)) : 0;
	return forward(ctx, &route);
}

/* Whether `site` has the address that the frame's IP header, of `family`, says it comes from. */
static __always_inline bool is_from(void *data, void *end, __u8 family, const struct site *site)
{
	if (site->state == SITE_UNKNOWN || site->family != family)
		return false;
	if (family == 4) {
		struct iphdr *ip = data + OUTER_IP;
		return (void *)(ip + 1) <= end && ip->saddr == site->address[0];
	}
	struct ipv6hdr *ip = data + OUTER_IP;
	if ((void *)(ip + 1) > end)
		return false;
	__u32 source[4];
	__builtin_memcpy(source, &ip->saddr, 16);
	return source[0] == site->address[0] && source[1] == site->address[1] &&
	       source[2] == site->address[2] && source[3] == site->address[3];
}

/* A reply of the sender's, bare again, on to its client: our upstreams know us as its source. */
static __always_inline int send_reply(struct xdp_md *ctx)
{
	struct ethernet *ethernet = (void *)(long)ctx->data;
	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	turn(ethernet);
	count(COUNT_SHIM_REPLY);
	return XDP_TX;
}

/* Answers KIND_ALIVE where it came from; the frame is long enough. */
static __always_inline int answer_alive(struct xdp_md *ctx, __u8 sender, const int family)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + OUTER_END(family) > end)
		return XDP_DROP;
	turn(data);
	if (family == 4) {
		struct iphdr *ip = data + OUTER_IP;
		__be32 source = ip->saddr;
		ip->saddr = ip->daddr;
		ip->daddr = source;
	} else {
		struct ipv6hdr *ip = data + OUTER_IP;
		struct in6_addr source = ip->saddr;
		ip->saddr = ip->daddr;
		ip->daddr = source;
	}
	struct udphdr *udp = data + OUTER_UDP(family);
	udp->dest = udp->source;
	udp->source = config.port;
	udp->check = 0;
	/* What was asked returns, so that the answer names its question. */
	__u64 *shim = data + OUTER_SHIM(family);
	shim[0] = shim_head(KIND_HERE, config.site, config.site, sender, wall_ms());
	shim[2] = shim_tag(config.shim_key, KIND_HERE, shim[0], shim[1], 0);
	count(COUNT_SHIM_ALIVE);
	return XDP_TX;
}

/* What remains to be done with a shim that is believed, of a kind with a packet behind it. */
static __always_inline int act(struct xdp_md *ctx, struct identity *id, const struct shim *shim, __u32 overhead)
{
	__u8 kind = shim->version_kind & 0xf;
	if (!unwrap(ctx, overhead, id->flow.family))
		return XDP_DROP;
	id->l4 -= overhead;
	if (config.reply_through && kind != KIND_REPLY && id->protocol != IPPROTO_ICMP)
		came_through(&id->flow, shim->origin);
	switch (kind) {
	case KIND_DATA:
		count(COUNT_SHIM_DATA);
		/* Back from those that were asked: nobody's, whatever was remembered. */
		if (shim->origin == config.site)
			bpf_map_delete_elem(&flows, &id->flow);
		return deliver(ctx, id, 0);
	case KIND_REPLY:
		return send_reply(ctx);
	case KIND_NEW:
		count(COUNT_SHIM_NEW);
		if (id->protocol == IPPROTO_TCP)
			note_opening(ctx, id->l4, id->hash);
		return NEW_CONNECTION;
	case KIND_PROBE:
		return probed(ctx, id, shim);
	default:
		count(COUNT_SHIM_MALFORMED);
		return XDP_DROP;
	}
}

/* An owner says that a connection is its own. */
static __always_inline int learn(struct xdp_md *ctx, const struct shim *shim, __u32 at, __u32 wall)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct flow *mine = data + at;
	if ((void *)(mine + 1) > end) {
		count(COUNT_SHIM_MALFORMED);
		return XDP_DROP;
	}
	struct flow flow = *mine;
	if (!shim_is_good(config.shim_key, shim, flow_hash(config.flow_key, &flow), wall)) {
		count(COUNT_SHIM_FORGED);
		return XDP_DROP;
	}
	__u8 owner = shim->sender;
	bpf_map_update_elem(&flows, &flow, &owner, BPF_ANY);
	count(COUNT_SHIM_MINE);
	return XDP_DROP;
}

/* A datagram to our unicast address and port; `family`: its own. */
__noinline int arrive(struct xdp_md *ctx, __u32 family)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 at = family == 4 ? OUTER_END(4) : OUTER_END(6);
	if (data + at > end) {
		count(COUNT_SHIM_MALFORMED);
		return XDP_DROP;
	}
	struct shim shim = *(struct shim *)(data + at - sizeof(shim));
	struct site *site = site_of(shim.sender);
	if (!site || !is_from(data, end, family, site)) {
		count(COUNT_SHIM_STRANGER);
		return XDP_DROP;
	}
	/* Seen on its way to another site, and sent to us. */
	if (shim.receiver != config.site) {
		count(COUNT_SHIM_FORGED);
		return XDP_DROP;
	}
	__u32 wall = wall_ms();
	__u8 kind = shim.version_kind & 0xf;
	if (kind == KIND_MINE)
		return learn(ctx, &shim, at, wall);
	struct identity id = {};
	if (kind != KIND_ALIVE && kind != KIND_HERE && !identify(ctx, at, kind == KIND_REPLY, &id)) {
		count(COUNT_SHIM_MALFORMED);
		return XDP_DROP;
	}
	/* The time of an answer is for the agent, which may learn from it that our clock is wrong. */
	if (!shim_is_good(config.shim_key, &shim, id.hash, kind == KIND_HERE ? bpf_ntohl(shim.wall_ms) : wall)) {
		count(COUNT_SHIM_FORGED);
		return XDP_DROP;
	}
	if (kind == KIND_HERE)
		return XDP_PASS;
	if (!is_on_time(&site->due_ns, config.budget_interval_ns)) {
		count(COUNT_SHIM_BUDGET);
		return XDP_DROP;
	}
	if (kind == KIND_ALIVE)
		return family == 4 ? answer_alive(ctx, shim.sender, 4) : answer_alive(ctx, shim.sender, 6);
	return act(ctx, &id, &shim, at - ETHERNET);
}
