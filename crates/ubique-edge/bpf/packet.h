/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Reading packets, and small changes to them. */
#pragma once

#include "state.h"

#define MAC_WORDS 3

/* `struct ethhdr` in words: of octets, clang copies each by itself. */
struct ethernet {
	__u16 destination[MAC_WORDS];
	__u16 source[MAC_WORDS];
	__be16 protocol;
};

#define ETHERNET sizeof(struct ethernet)
#define TCP_TIME_WAIT 6
#define TCP_LISTEN 10
#define TCP_NEW_SYN_RECV 12

#define IP_FRAGMENT bpf_htons(0x3fff)

/* Two NOPs, then the timestamps option (RFC 7323): how nearly everybody begins the options of an established connection. */
#define NOP_NOP_TIMESTAMP bpf_htonl(0x0101080a)

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

static __always_inline __u8 tcp_flags(const struct tcphdr *tcp)
{
	return ((const __u8 *)tcp)[13];
}

/* RFC 1624: `check` after `old` became `new`. */
static __always_inline __u16 checksum_replace(__u16 check, __u32 old, __u32 new)
{
	__u64 sum = (__u16)~check + (__u64)(__u32)~old + new;
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* A connection, as a packet says it. */
struct identity {
	struct flow flow;
	__u64 hash;
	/* Offset of the TCP or UDP header; of the quoted one in an ICMP error. */
	__u32 l4;
	/* IPPROTO_TCP, IPPROTO_UDP, or IPPROTO_ICMP for errors of either family that quote TCP. */
	__u8 protocol;
	__u8 padding[3];
};

/* Addresses and ports of the packet at `at`. `reversed`: it is one of ours, quoted by an error. */
static __always_inline bool identify_flow(void *data, void *end, __u32 at, bool reversed, struct identity *id)
{
	struct iphdr *v4 = data + at;
	if ((void *)(v4 + 1) > end)
		return false;
	__builtin_memset(&id->flow, 0, sizeof(id->flow));
	__u32 *client = reversed ? id->flow.service : id->flow.client;
	__u32 *service = reversed ? id->flow.client : id->flow.service;
	__u32 *ports;
	if (*(__u8 *)v4 == 0x45) {
		if (v4->frag_off & IP_FRAGMENT)
			return false;
		client[0] = v4->saddr;
		service[0] = v4->daddr;
		id->flow.family = 4;
		id->protocol = v4->protocol;
		ports = (void *)(v4 + 1);
		id->l4 = at + sizeof(*v4);
	} else {
		struct ipv6hdr *v6 = data + at;
		if ((void *)(v6 + 1) > end || *(__u8 *)v6 >> 4 != 6)
			return false;
		__builtin_memcpy(client, &v6->saddr, 16);
		__builtin_memcpy(service, &v6->daddr, 16);
		id->flow.family = 6;
		id->protocol = v6->nexthdr;
		ports = (void *)(v6 + 1);
		id->l4 = at + sizeof(*v6);
	}
	if ((void *)(ports + 1) > end)
		return false;
	id->flow.ports = reversed ? *ports << 16 | *ports >> 16 : *ports;
	return true;
}

/* Whether the ICMP header says that a packet was too big for its path. */
static __always_inline bool is_too_big(const __u8 *icmp, __u8 family)
{
	return family == 4 ? icmp[0] == ICMP_DEST_UNREACH && icmp[1] == ICMP_FRAG_NEEDED : icmp[0] == ICMPV6_PKT_TOOBIG;
}

/* False: nothing that belongs to a connection. `at`: where its IP header begins; `reversed`: it is one of ours. */
static __noinline bool identify(struct xdp_md *ctx, __u32 at, bool reversed, struct identity *id)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (!identify_flow(data, end, at, reversed, id))
		return false;
	if (id->protocol == IPPROTO_ICMP || id->protocol == IPPROTO_ICMPV6) {
		__u32 header = id->flow.family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
		__u8 *icmp = data + at + header;
		if ((void *)(icmp + 8) > end || !is_too_big(icmp, id->flow.family))
			return false;
		if (!identify_flow(data, end, at + header + 8, true, id) || id->protocol != IPPROTO_TCP)
			return false;
		id->protocol = IPPROTO_ICMP;
	} else if (id->protocol != IPPROTO_TCP && id->protocol != IPPROTO_UDP) {
		return false;
	}
	id->hash = flow_hash(config.flow_key, &id->flow);
	return true;
}

/* Options looked at: nobody sends more before the timestamps. */
#define OPTIONS_MAX 16

/* Offset of the TSecr of the TCP header at `l4`; 0: there is none. Not static, so that the verifier looks at it once. */
__noinline __u32 find_echo(struct xdp_md *ctx, __u32 l4)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (l4 > 256)
		return 0;
	struct tcphdr *tcp = data + l4;
	if ((void *)(tcp + 1) > end)
		return 0;
	__u32 at = sizeof(*tcp), length = tcp->doff * 4;
	for (int i = 0; i < OPTIONS_MAX && at + 10 <= length; i++) {
		__u8 *option = data + l4 + (at & 63);
		if ((void *)(option + 2) > end)
			return 0;
		if (option[0] == 0)
			return 0;
		if (option[0] == 1) {
			at++;
			continue;
		}
		if (option[0] == 8 && option[1] == 10)
			return l4 + at + 6;
		if (option[1] < 2)
			return 0;
		at += option[1];
	}
	return 0;
}

/* The word at an offset that was found, below 512; NULL: it is not in the packet. */
static __always_inline __be32 *word_at(struct xdp_md *ctx, __u32 at)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	/* So that the compiler leaves the bound where the verifier looks for it. */
	asm volatile("" : "+r"(at));
	__be32 *word = data + (at & 511);
	return (void *)(word + 1) <= end ? word : NULL;
}

/* Takes our offset off the TSecr at `at` (0: there is none), as the kernel that sent it expects (tier 2). */
static __always_inline void restore(struct xdp_md *ctx, __u32 l4, __u32 at, __u64 hash)
{
	__be32 *echo = at ? word_at(ctx, at) : NULL;
	void *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = (void *)(long)ctx->data + (l4 & 255);
	if (!echo || !*echo || (void *)(tcp + 1) > end)
		return;
	__be32 new = bpf_htonl(bpf_ntohl(*echo) - timestamp_encode(config.clock_base_ms, config.site, hash));
	tcp->check = checksum_replace(tcp->check, *echo, new);
	*echo = new;
}

/* Forwarding takes room, in both families: no segment may be longer (RFC 9293 §3.7.1). `headers`: of IP and TCP, without options. */
static __always_inline __u16 segment_max(__u32 headers)
{
	return config.mtu - (sizeof(struct ipv6hdr) + sizeof(struct udphdr) + sizeof(struct shim)) - headers;
}

#define MAXIMUM_SEGMENT_SIZE bpf_htons(0x0204)

/* The octets of it that count. */
static __always_inline __u32 fill_tuple(struct bpf_sock_tuple *tuple, const struct flow *flow)
{
	if (flow->family == 4) {
		tuple->ipv4.saddr = flow->client[0];
		tuple->ipv4.daddr = flow->service[0];
		__builtin_memcpy(&tuple->ipv4.sport, &flow->ports, 4);
		return sizeof(tuple->ipv4);
	}
	__builtin_memcpy(tuple->ipv6.saddr, flow->client, 16);
	__builtin_memcpy(tuple->ipv6.daddr, flow->service, 16);
	__builtin_memcpy(&tuple->ipv6.sport, &flow->ports, 4);
	return sizeof(tuple->ipv6);
}

/* Back to the router that a frame came from. */
static __always_inline void turn(struct ethernet *ethernet)
{
	for (int i = 0; i < MAC_WORDS; i++) {
		__u16 word = ethernet->source[i];
		ethernet->source[i] = ethernet->destination[i];
		ethernet->destination[i] = word;
	}
}

static __always_inline __u32 *opening_of(__u64 hash)
{
	__u32 key = hash % OPENINGS;
	return bpf_map_lookup_elem(&openings, &key);
}

/* A SYN without timestamps goes to the kernel. */
static __always_inline void note_opening(struct xdp_md *ctx, __u32 l4, __u64 hash)
{
	struct tcphdr *tcp = (void *)(long)ctx->data + (l4 & 255);
	__u32 *opening = opening_of(hash);
	if (opening && (void *)(tcp + 1) <= (void *)(long)ctx->data_end)
		*opening = bpf_ntohl(tcp->seq) + 1;
}

/* So far may a client be ahead of its handshake. */
#define OPENING_WINDOW 65536

/*
 * Whether a packet is of the handshake that is on its way. Somebody may have sent a SYN in the name of a client whose connection is another
 * site's: the kernel would answer that connection's packets by a reset.
 */
static __always_inline bool is_of_opening(struct xdp_md *ctx, const struct identity *id)
{
	struct tcphdr *tcp = (void *)(long)ctx->data + (id->l4 & 255);
	__u32 *opening = opening_of(id->hash);
	if (id->protocol != IPPROTO_TCP || !opening || (void *)(tcp + 1) > (void *)(long)ctx->data_end)
		return true;
	return bpf_ntohl(tcp->seq) - *opening < OPENING_WINDOW;
}

/* Whether a socket here has this connection. */
static __noinline bool has_socket(struct xdp_md *ctx, const struct identity *id)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size = fill_tuple(&tuple, &id->flow);
	struct bpf_sock *socket = bpf_skc_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return false;
	__u32 state = socket->state;
	bpf_sk_release(socket);
	if (state == TCP_NEW_SYN_RECV)
		return is_of_opening(ctx, id);
	/* What is over claims nothing: the client may have begun anew, from the same port, elsewhere. */
	return state != TCP_LISTEN && state != TCP_TIME_WAIT;
}
