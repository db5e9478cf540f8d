/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * How packets say which site owns them: the twins of crates/ubique-proto/src/sessions/{.,timestamp,sequence,connection_id,shim}.rs, where
 * each is explained. tests/vectors.rs runs both on the same input.
 */
#pragma once

#include "siphash.h"

#define SITES_MAX 64
#define SPACING 4
#define NO_SITE 0xff

/* --- flows and masks --- */

/* A connection as its client's packets say it; IPv4 addresses stand in the first word of each, the rest is 0. */
struct flow {
	__u32 client[4];
	__u32 service[4];
	/* Both ports, as they stand in a client's packet. */
	__u32 ports;
	/* 4 or 6 */
	__u8 family;
	__u8 padding[3];
};

static __always_inline __u64 flow_hash_v4(const volatile __u64 key[2], __u32 client, __u32 service, __u32 ports)
{
	struct sip s = sip_begin(key);
	sip_word(&s, client | (__u64)service << 32);
	return sip_end(&s, ports, 12);
}

static __always_inline __u64 flow_hash_v6(const volatile __u64 key[2], const __u32 client[4], const __u32 service[4], __u32 ports)
{
	struct sip s = sip_begin(key);
	sip_word(&s, client[0] | (__u64)client[1] << 32);
	sip_word(&s, client[2] | (__u64)client[3] << 32);
	sip_word(&s, service[0] | (__u64)service[1] << 32);
	sip_word(&s, service[2] | (__u64)service[3] << 32);
	return sip_end(&s, ports, 36);
}

static __always_inline __u64 flow_hash(const volatile __u64 key[2], const struct flow *flow)
{
	if (flow->family == 4)
		return flow_hash_v4(key, flow->client[0], flow->service[0], flow->ports);
	return flow_hash_v6(key, flow->client, flow->service, flow->ports);
}

static __always_inline __u8 mask_code(__u64 hash)
{
	return hash;
}

static __always_inline __u32 mask_sequence(__u64 hash)
{
	return hash >> 32;
}

static __always_inline __u8 site_of_code(__u8 code)
{
	return code % SPACING ? NO_SITE : code / SPACING;
}

/* --- TCP timestamps --- */

#define TIMESTAMP_SHIFT 24
#define SLACK_MS 300000
#define AGE_BITS 21
#define IDLE_MS ((1 << AGE_BITS) - SLACK_MS - 1)
#define OLD_MS ((1 << TIMESTAMP_SHIFT) - SLACK_MS - 1)

static __always_inline __u32 timestamp_encode(__u32 wall_ms, __u8 site, __u64 hash)
{
	return wall_ms + ((__u32)(__u8)(site * SPACING + mask_code(hash)) << TIMESTAMP_SHIFT);
}

static __always_inline __u8 timestamp_decode(__u32 echo, __u32 wall_ms, __u64 hash)
{
	__u32 shifted = echo - wall_ms + IDLE_MS;
	if (shifted & ((1 << TIMESTAMP_SHIFT) - (1 << AGE_BITS)))
		return NO_SITE;
	return site_of_code((shifted >> TIMESTAMP_SHIFT) - mask_code(hash));
}

static __always_inline __u8 timestamp_decode_old(__u32 echo, __u32 wall_ms, __u64 hash)
{
	return site_of_code(((echo - wall_ms + OLD_MS) >> TIMESTAMP_SHIFT) - mask_code(hash));
}

/* --- initial sequence numbers --- */

#define SEQUENCE_SHIFT 24
#define COOKIE_BITS 22
#define COOKIE_MASK ((1u << COOKIE_BITS) - 1)

static __always_inline __u32 sequence_encode(__u8 site, __u32 cookie, __u64 hash)
{
	return ((__u32)(site * SPACING) << SEQUENCE_SHIFT | (cookie & COOKIE_MASK)) + mask_sequence(hash);
}

static __always_inline __u8 sequence_decode(__u32 acknowledgement, __u64 hash)
{
	return (acknowledgement - mask_sequence(hash)) >> SEQUENCE_SHIFT >> 2;
}

static __always_inline __u32 sequence_cookie(__u32 acknowledgement, __u64 hash)
{
	return (acknowledgement - 1 - mask_sequence(hash)) & COOKIE_MASK;
}

/* --- QUIC connection identifiers --- */

#define ID_BYTES 10
#define ID_LENGTH_BITS 5

/* `id`: ID_BYTES octets. */
static __always_inline __u8 id_decode(const volatile __u64 key[2], __u8 rotation, const __u8 *id)
{
	__u64 nonce = 0;
	__builtin_memcpy(&nonce, id + 3, 7);
	struct sip s = sip_begin(key);
	__u16 mask = sip_end(&s, nonce, 7);
	if (id[0] != (rotation << ID_LENGTH_BITS | (ID_BYTES - 1)) || id[2] != mask >> 8)
		return NO_SITE;
	return site_of_code(id[1] ^ (__u8)mask);
}

/* --- shims --- */

enum kind {
	KIND_DATA,
	KIND_PROBE,
	KIND_NEW,
	KIND_MINE,
	KIND_REPLY,
	KIND_ALIVE,
	KIND_HERE,
	KINDS,
};

#define SHIM_VERSION 1

struct shim {
	__u8 version_kind;
	__u8 sender;
	__u8 origin;
	__u8 receiver;
	__be32 wall_ms;
	__be64 asked;
	__u64 tag;
};

/* The first two words, as they stand in memory. */
static __always_inline __u64 shim_head(enum kind kind, __u8 sender, __u8 origin, __u8 receiver, __u32 wall_ms)
{
	__u32 first = SHIM_VERSION << 4 | kind | (__u32)sender << 8 | (__u32)origin << 16 | (__u32)receiver << 24;
	return first | (__u64)bpf_htonl(wall_ms) << 32;
}

/* Whether a shim's second word says something. */
static __always_inline bool kind_asks(enum kind kind)
{
	return kind == KIND_PROBE || kind == KIND_ALIVE || kind == KIND_HERE;
}

/* `asked`: as it stands in memory. */
static __always_inline __u64 shim_tag(const volatile __u64 key[2], enum kind kind, __u64 head, __u64 asked, __u64 flow)
{
	struct sip s = sip_begin(key);
	bool asks = kind_asks(kind);
	sip_word(&s, head);
	if (asks)
		sip_word(&s, asked);
	return sip_end(&s, flow & 0xffffffffffffffULL, asks ? 23 : 15);
}

static __always_inline __u64 shim_tag_of(const volatile __u64 key[2], const struct shim *shim, __u64 flow)
{
	__u64 words[2];
	__builtin_memcpy(words, shim, sizeof(words));
	return shim_tag(key, shim->version_kind & 0xf, words[0], words[1], flow);
}

/* Whether form, tag and time are right; not, whom it is for. */
static __always_inline bool shim_is_good(const volatile __u64 key[2], const struct shim *shim, __u64 flow, __u32 wall_ms)
{
	__u32 age = wall_ms - bpf_ntohl(shim->wall_ms);
	enum kind kind = shim->version_kind & 0xf;
	return shim->version_kind >> 4 == SHIM_VERSION && kind < KINDS && (kind_asks(kind) || !shim->asked) &&
	       shim->sender < SITES_MAX && shim->origin < SITES_MAX && shim->receiver < SITES_MAX && shim->tag == shim_tag_of(key, shim, flow) &&
	       age + SLACK_MS <= 2 * SLACK_MS;
}
