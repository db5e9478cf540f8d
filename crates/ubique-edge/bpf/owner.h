/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Packets whose owner does not stand in them: a cache, our own sockets, then site by site. */
#pragma once

#include "cookie.h"
#include "forward.h"

/* The lowest site of a set that is not empty. */
static __always_inline __u8 lowest(__u64 set)
{
	__u8 site = 0;
	if (!(set & 0xffffffff)) {
		site += 32;
		set >>= 32;
	}
	if (!(set & 0xffff)) {
		site += 16;
		set >>= 16;
	}
	if (!(set & 0xff)) {
		site += 8;
		set >>= 8;
	}
	if (!(set & 0xf)) {
		site += 4;
		set >>= 4;
	}
	if (!(set & 3)) {
		site += 2;
		set >>= 2;
	}
	return set & 1 ? site : site + 1;
}

static __always_inline __u64 bit(__u8 site)
{
	return 1ULL << (site & (SITES_MAX - 1));
}

static __always_inline __u64 sites_up(void)
{
	return *(volatile __u64 *)&live.up;
}

/* A packet of the client came through `site`: so do replies. */
static __always_inline void came_through(const struct flow *flow, __u8 site)
{
	struct way *way = bpf_map_lookup_elem(&returns, flow);
	if (way) {
		way->through = site;
		way->sent = false;
	} else if (site != config.site) {
		struct way new = { .through = site };
		bpf_map_update_elem(&returns, flow, &new, BPF_ANY);
	}
}

/* Delivers a packet of a connection that is ours: `at` is where its TSecr is, 0 if nobody looked yet. */
static __always_inline int deliver(struct xdp_md *ctx, const struct identity *id, __u32 at)
{
	if (config.rewrite && id->protocol == IPPROTO_TCP)
		restore(ctx, id->l4, at ? at : find_echo(ctx, id->l4), id->hash);
	return XDP_PASS;
}

/* What a packet without timestamps acknowledges. */
struct said {
	/* Whose number it would be. */
	__u8 site;
	/* It returns a cookie of ours: there is no socket yet. */
	bool is_cookie;
};

static __noinline bool read_said(struct xdp_md *ctx, const struct identity *id, struct said *said)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (id->l4 > 256 || id->protocol != IPPROTO_TCP)
		return false;
	struct tcphdr *tcp = data + id->l4;
	if ((void *)(tcp + 1) > end || !(tcp_flags(tcp) & TCP_ACK))
		return false;
	__u32 number = bpf_ntohl(tcp->ack_seq), client = bpf_ntohl(tcp->seq) - 1;
	said->site = sequence_decode(number, id->hash);
	said->is_cookie = sequence_is_initial(number, config.site, id->hash) &&
			  cookie_is_good(config.cookie_key, id->hash, client, sequence_cookie(number, id->hash), false,
					 clock_ms());
	return true;
}

/* Whom to ask, if no site: all, one after the other. SOMEBODY: so little speaks for it that less is spent on it. */
#define ANYBODY 0x100
#define SOMEBODY 0x101

/*
 * A TCP packet for us or another site, not a SYN, or an error about one, that does not tell. `whom`: the site that may own it, NO_SITE if
 * there is none, ANYBODY or SOMEBODY.
 */
__noinline int ask(struct xdp_md *ctx, __u32 whom)
{
	struct identity id = {};
	if (!identify(ctx, ETHERNET, false, &id) || id.protocol == IPPROTO_UDP)
		return XDP_PASS;
	struct route route = { .hash = id.hash, .origin = config.site, .wall_ms = wall_ms() };
	__u64 up = sites_up();
	__u8 *owner = bpf_map_lookup_elem(&flows, &id.flow);
	if (owner && up & bit(*owner)) {
		/* It may have forgotten the connection, and the client begun another one from the same port elsewhere: then others are asked. */
		route.to = *owner;
		route.asked = bpf_cpu_to_be64(bit(*owner));
		route.kind = KIND_PROBE;
		route.counter = COUNT_FORWARD_CACHE;
		return forward(ctx, &route);
	}
	if (has_socket(ctx, &id)) {
		count(COUNT_LOCAL_SOCKET);
		if (config.reply_through)
			came_through(&id.flow, config.site);
		return deliver(ctx, &id, 0);
	}
	struct said said = { .site = NO_SITE };
	if (config.cookies && whom == ANYBODY && read_said(ctx, &id, &said) && said.is_cookie) {
		count(COUNT_LOCAL_SEQUENCE);
		return XDP_PASS;
	}
	__u64 candidates = whom < NO_SITE ? up & bit(whom) : whom == NO_SITE ? 0 : up;
	if (!candidates) {
		count(COUNT_UNOWNED);
		return XDP_PASS;
	}
	if (!(whom == ANYBODY ? is_on_time(&probes, config.probe_interval_ns) :
				is_on_time(&doubtful_probes, config.probe_interval_ns * DOUBTFUL_SHARE))) {
		count(COUNT_PROBE_LIMITED);
		return XDP_DROP;
	}
	/* Who the sequence number says is asked first: it is right for as long as the server has not sent much. */
	bool told = said.site < SITES_MAX && candidates & bit(said.site);
	route.to = told ? said.site : lowest(candidates);
	/* One that is asked alone is the last. */
	route.asked = whom < NO_SITE ? ~0ULL : bpf_cpu_to_be64(bit(config.site) | bit(route.to));
	route.kind = KIND_PROBE;
	route.counter = told ? COUNT_FORWARD_SEQUENCE : COUNT_FORWARD_PROBE;
	return forward(ctx, &route);
}
