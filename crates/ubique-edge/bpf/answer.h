/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Answers SYNs by our own cookies (tier 1): the SYN becomes its SYN-ACK and leaves where it came from. Everything that is not a new
 * connection to a plain listener is the kernel's: TIME_WAIT has its own rule for sequence numbers, an established connection must
 * challenge, MPTCP cannot be begun by a cookie (bpf_sk_assign_tcp_reqsk refuses it), and nobody but the kernel knows keys of
 * signed segments.
 *
 * Answered without: data and Fast Open (the client sends again), ECN (no bit is left for it), MPTCP where the listener is plain.
 */
#pragma once

#include "listener.h"
#include "offer.h"

/* Ours, the same for all: windows up to 64 MiB, in steps of 1 KiB. What Linux takes by itself where tcp_rmem is 32 MiB. */
#define WINDOW_SCALE 10
/* Until the kernel says more: for the first segments of a client, ten of them (RFC 6928), and no more than any listener takes. */
#define WINDOW 29200
#define TTL 64

/* Shorter frames are padded (IEEE 802.3). */
#define FRAME_MIN 60

/* Whether an answer can arrive. The kernel drops what pretends to come from such addresses. */
static __always_inline bool is_answerable(const struct flow *flow)
{
	if (flow->family == 4) {
		__u8 first = flow->client[0];
		return first && first != 127 && first < 224 && flow->client[0] != flow->service[0];
	}
	__u64 high = flow->client[0] | (__u64)flow->client[1] << 32, low = flow->client[2] | (__u64)flow->client[3] << 32;
	if (!high && (!low || low == bpf_cpu_to_be64(1)))
		return false;
	return (__u8)high != 0xff && (flow->client[0] != flow->service[0] || flow->client[1] != flow->service[1] ||
				      flow->client[2] != flow->service[2] || flow->client[3] != flow->service[3]);
}

static __always_inline bool takes_cookies(__u32 ports)
{
	__be16 service = ports >> 16;
	if (!config.count_tcp_ports)
		return true;
	for (__u32 i = 0; i < PORTS_MAX && i < config.count_tcp_ports; i++)
		if (service == config.tcp_ports[i])
			return true;
	return false;
}

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Fills in the checksum: over the pseudo header (RFC 9293 §3.1, RFC 8200 §8.1), whose words are summed up in `sum`, and all of it. */
static __always_inline void close_header(struct header *header, const struct flow *flow)
{
	__u64 sum = bpf_htonl(IPPROTO_TCP) + (__u64)bpf_htonl(header->count * 4);
	for (int i = 0; i < 4; i++)
		sum += (__u64)flow->client[i] + flow->service[i];
	for (int i = 0; i < HEADER_WORDS_MAX; i++)
		sum += header->words[i];
	header->words[4] = (__u16)~fold(sum);
}

/* The SYN-ACK. `client`: its initial sequence number. */
static __always_inline void make_header(struct header *header, const struct identity *id, const struct offer *offer, __u32 client,
					__u8 segment)
{
	__u64 wall = clock_ms();
	__u8 agreed = segment << AGREED_SEGMENT_SHIFT | offer->scale << AGREED_SCALE_SHIFT | (offer->sack ? AGREED_SACK : 0) |
		      (offer->timestamps ? AGREED_TIMESTAMPS : 0);
	bool scaled = offer->scale != NO_SCALE;
	__be32 scale = scaled ? bpf_htonl(OPTION_NOP << 24 | OPTION_SCALE << 16 | 3 << 8 | WINDOW_SCALE) : 0;
	__u32 sack = offer->sack ? OPTION_SACK << 8 | 2 : OPTION_NOP << 8 | OPTION_NOP;

	header->words[0] = id->flow.ports << 16 | id->flow.ports >> 16;
	header->words[1] = bpf_htonl(
		sequence_encode(config.site, cookie_encode(config.cookie_key, id->hash, client, agreed, wall), id->hash));
	header->words[2] = bpf_htonl(client + 1);
	header->words[4] = 0;
	header->words[5] = bpf_htonl(OPTION_SEGMENT << 24 | 4 << 16 | segment_max((id->flow.family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) + sizeof(struct tcphdr)));
	if (offer->timestamps) {
		header->words[6] = bpf_htonl(sack << 16 | OPTION_TIMESTAMPS << 8 | 10);
		header->words[7] = bpf_htonl(timestamp_encode(wall, config.site, id->hash));
		header->words[8] = offer->value;
		header->words[9] = scale;
		header->count = scaled ? 10 : 9;
	} else {
		header->words[6] = offer->sack ? bpf_htonl(OPTION_NOP << 24 | OPTION_NOP << 16 | sack) : scale;
		header->words[7] = offer->sack ? scale : 0;
		header->words[8] = 0;
		header->words[9] = 0;
		header->count = 6 + offer->sack + scaled;
	}
	header->words[3] = bpf_htonl(header->count << 28 | (TCP_SYN | TCP_ACK) << 16 | WINDOW);
	close_header(header, &id->flow);
}

static __always_inline void write_ip_v4(struct iphdr *ip, const struct flow *flow, __u32 length)
{
	__be32 *words = (void *)ip;
	words[0] = bpf_htonl(0x45000000 | (sizeof(*ip) + length));
	words[1] = bpf_htonl(0x4000);
	words[2] = bpf_htonl(TTL << 24 | IPPROTO_TCP << 16);
	words[3] = flow->service[0];
	words[4] = flow->client[0];
	__u64 sum = 0;
	for (int i = 0; i < 5; i++)
		sum += words[i];
	ip->check = ~fold(sum);
}

static __always_inline void write_ip_v6(struct ipv6hdr *ip, const struct flow *flow, __u32 length)
{
	__be32 *words = (void *)ip;
	words[0] = bpf_htonl(6u << 28);
	words[1] = bpf_htonl(length << 16 | IPPROTO_TCP << 8 | TTL);
	for (int i = 0; i < 4; i++) {
		words[2 + i] = flow->service[i];
		words[6 + i] = flow->client[i];
	}
}

/* Makes the frame a SYN-ACK; false: it is as it was. */
static __always_inline bool write_answer(struct xdp_md *ctx, const struct flow *flow, const struct header *header, __u32 l4)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 length = l4 + header->count * 4;
	int more = (int)(length > FRAME_MIN ? length : FRAME_MIN) - (int)(end - data);
	if (more && bpf_xdp_adjust_tail(ctx, more))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	/* Cannot be: it is the length that was asked for, of at least six words. */
	if (data + ETHERNET + sizeof(struct ipv6hdr) > end)
		return false;
	turn(data);
	__be32 *words;
	if (flow->family == 4) {
		write_ip_v4(data + ETHERNET, flow, header->count * 4);
		words = data + ETHERNET + sizeof(struct iphdr);
	} else {
		write_ip_v6(data + ETHERNET, flow, header->count * 4);
		words = data + ETHERNET + sizeof(struct ipv6hdr);
	}
	for (__u32 i = 0; i < HEADER_WORDS_MAX && (void *)(words + i + 1) <= end; i++)
		words[i] = header->words[i];
	/* Padding: half a word. */
	if (length + 2 == FRAME_MIN) {
		__u16 *padding = data + FRAME_MIN - 2;
		if ((void *)(padding + 1) <= end)
			*padding = 0;
	}
	return true;
}

#define TIMESTAMPS_LENGTH 10

/*
 * Takes the timestamps out of a SYN that is left to the kernel, whose clock would say some site, one time in a hundred that of another: what
 * has none is found by its socket. Not where a signature covers them.
 */
static __always_inline void strip_timestamps(struct xdp_md *ctx, __u32 l4, const struct offer *offer)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = data + (l4 & 127);
	__u32 at = offer->timestamps_at & 63;
	__u8 *option = (void *)(tcp + 1) + at;
	if ((void *)(tcp + 1) > end || (void *)(option + TIMESTAMPS_LENGTH) > end)
		return;
	__u32 old = 0, new = 0;
	for (__u32 i = 0; i < TIMESTAMPS_LENGTH; i++) {
		__u32 shift = (at + i) & 1 ? 8 : 0;
		old += (__u32)option[i] << shift;
		new += (__u32)OPTION_NOP << shift;
		option[i] = OPTION_NOP;
	}
	tcp->check = checksum_replace(tcp->check, old, new);
}

/* A SYN to the service that we take, bare, at ETHERNET: XDP_TX, or the kernel's. */
__noinline int answer_syn(struct xdp_md *ctx)
{
	struct scratch *scratch = scratch_of_this_processor();
	if (!scratch)
		return XDP_PASS;
	struct identity *id = &scratch->id;
	if (!identify(ctx, ETHERNET, false, id) || id->protocol != IPPROTO_TCP)
		return XDP_PASS;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethernet *ethernet = data;
	__u32 l4 = id->flow.family == 4 ? ETHERNET + sizeof(struct iphdr) : ETHERNET + sizeof(struct ipv6hdr);
	struct tcphdr *tcp = data + l4;
	if ((void *)(tcp + 1) > end || (tcp_flags(tcp) & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) != TCP_SYN)
		return XDP_PASS;
	__u32 client = bpf_ntohl(tcp->seq), length = tcp->doff * 4 - sizeof(*tcp);
	/* To a group: never a connection. */
	bool possible = !(ethernet->destination[0] & 1) && takes_cookies(id->flow.ports) && is_answerable(&id->flow);
	struct offer offer = offer_nothing(id->flow.family);
	if (length) {
		if (length > OPTIONS_LENGTH_MAX || bpf_xdp_load_bytes(ctx, l4 + sizeof(*tcp), scratch->options.octets, length))
			goto kernel;
		read_offer(&scratch->options, length, &offer);
		if (offer.timestamps)
			count(COUNT_SYN_TIMESTAMPS);
	}
	__u8 segment = segment_index(id->flow.family, offer.segment);
	if (!possible || *(volatile __u8 *)&live.no_cookies || segment == SEGMENTS || offer.is_signed || !find_listener(ctx, &id->flow))
		goto kernel;
	make_header(&scratch->header, id, &offer, client, segment);
	if (!write_answer(ctx, &id->flow, &scratch->header, l4))
		goto kernel;
	count(COUNT_SYN_COOKIE);
	return XDP_TX;
kernel:
	if (offer.timestamps && !offer.is_signed)
		strip_timestamps(ctx, l4, &offer);
	note_opening(ctx, l4, id->hash);
	count(COUNT_SYN_KERNEL);
	return XDP_PASS;
}
