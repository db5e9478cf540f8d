/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * SYN cookies: the twin of crates/ubique-proto/src/sessions/cookie.rs, where they are explained, and what they say in the kernel's
 * terms.
 */
#pragma once

#include "encoding.h"

#define UNIT_SHIFT 16
#define UNIT_MASK 0xffffffu
#define MAC_BITS 14
#define MAC_MASK ((1u << MAC_BITS) - 1)

/* What a SYN said, in eight bits. */
#define AGREED_TIMESTAMPS 0x01
#define AGREED_SACK 0x02
#define AGREED_SCALE_SHIFT 2
#define AGREED_SEGMENT_SHIFT 6

#define NO_SCALE 15
#define SCALE_MAX 14

static __always_inline __u8 agreed_scale(__u8 agreed)
{
	return agreed >> AGREED_SCALE_SHIFT & NO_SCALE;
}

/* Sizes of segments by family and index. */
static __always_inline __u16 segment_size(__u8 family, __u8 index)
{
	switch (index) {
	case 0:
		return family == 4 ? 536 : 1220;
	case 1:
		return family == 4 ? 1300 : 1420;
	case 2:
		return 1440;
	default:
		return family == 4 ? 1460 : 8940;
	}
}

#define SEGMENTS 4

/* SEGMENTS: less than any. */
static __always_inline __u8 segment_index(__u8 family, __u16 offered)
{
	if (offered >= segment_size(family, 3))
		return 3;
	if (offered >= segment_size(family, 2))
		return 2;
	if (offered >= segment_size(family, 1))
		return 1;
	return offered >= segment_size(family, 0) ? 0 : SEGMENTS;
}

static __always_inline __u32 cookie_mac(const volatile __u64 key[2], __u64 hash, __u32 client, __u8 agreed, __u32 unit)
{
	struct sip s = sip_begin(key);
	sip_word(&s, hash);
	sip_word(&s, client | (__u64)unit << 32 | (__u64)agreed << 56);
	return sip_end(&s, 0, 16) & MAC_MASK;
}

/* `client`: its initial sequence number. */
static __always_inline __u32 cookie_encode(const volatile __u64 key[2], __u64 hash, __u32 client, __u8 agreed, __u64 wall_ms)
{
	__u32 unit = wall_ms >> UNIT_SHIFT & UNIT_MASK;
	return (__u32)(agreed >> 1) << (MAC_BITS + 1) | (unit & 1) << MAC_BITS | cookie_mac(key, hash, client, agreed, unit);
}

static __always_inline __u8 cookie_agreed(__u32 cookie, bool timestamps)
{
	return cookie >> (MAC_BITS + 1) << 1 | timestamps;
}

static __always_inline bool cookie_is_good(const volatile __u64 key[2], __u64 hash, __u32 client, __u32 cookie, bool timestamps,
					   __u64 wall_ms)
{
	__u32 now = wall_ms >> UNIT_SHIFT & UNIT_MASK;
	__u32 made = (now - ((now ^ cookie >> MAC_BITS) & 1)) & UNIT_MASK;
	return (cookie & MAC_MASK) == cookie_mac(key, hash, client, cookie_agreed(cookie, timestamps), made);
}

/* `said`: what our clock of timestamps says now. */
static __always_inline bool echo_is_recent(__u32 echo, __u32 said)
{
	return said - echo < 2u << UNIT_SHIFT;
}

static __always_inline bool sequence_is_initial(__u32 acknowledgement, __u8 site, __u64 hash)
{
	return (acknowledgement - 1 - mask_sequence(hash)) >> COOKIE_BITS == (__u32)(site * SPACING) << (SEQUENCE_SHIFT - COOKIE_BITS);
}
