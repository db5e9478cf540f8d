/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What a client offers or says in the options of its TCP header (RFC 9293 §3.2, RFC 7323, RFC 2018). */
#pragma once

#include "cookie.h"
#include "packet.h"

#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_SEGMENT 2
#define OPTION_SCALE 3
#define OPTION_SACK 4
#define OPTION_TIMESTAMPS 8
#define OPTION_MD5 19
#define OPTION_AO 29

/* Octets; as many options, if all are NOPs. */
#define OPTIONS_LENGTH_MAX 40

/* All options, and as much behind them as an offset in six bits and the longest option may reach. */
struct options {
	__u8 octets[64 + 16];
	/* 0 */
	__u32 begin;
};

/* A TCP header, with 0 behind it. */
#define HEADER_WORDS_MAX 10

struct header {
	__be32 words[HEADER_WORDS_MAX];
	__u32 count;
};

/* What the stack has no room for. What stands behind the options is of other packets. */
struct scratch {
	struct options options;
	struct header header;
	struct identity id;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

static __always_inline struct scratch *scratch_of_this_processor(void)
{
	__u32 key = 0;
	return bpf_map_lookup_elem(&scratch, &key);
}

struct offer {
	/* TSval and TSecr, as they stand there. */
	__be32 value;
	__be32 echo;
	__u16 segment;
	__u8 scale;
	bool sack;
	bool timestamps;
	/* Where they stand among the options. */
	__u8 timestamps_at;
	/* Segments are signed (RFC 2385, RFC 5925). */
	bool is_signed;
};

/* What a connection is without a word. */
static __always_inline struct offer offer_nothing(__u8 family)
{
	return (struct offer){ .segment = family == 4 ? 536 : 1220, .scale = NO_SCALE };
}

/*
 * `length`: of all options. What is malformed ends the list, as for the kernel. Not static: the verifier then looks at it once, without
 * what its callers know.
 */
__noinline int read_offer(const struct options *options, __u32 length, struct offer *offer)
{
	if (!options || !offer)
		return 0;
	/*
	 * Offsets that the verifier does not know: it would follow each of them, as many as there are sums of lengths. From memory, and
	 * lengths are read a second time.
	 */
	__u32 at = *(volatile __u32 *)&options->begin;
	for (int i = 0; i < OPTIONS_LENGTH_MAX && at < length; i++) {
		const __u8 *option = options->octets + (at & 63);
		__u8 kind = option[0], size = option[1];
		if (kind == OPTION_NOP) {
			at++;
			continue;
		}
		if (kind == OPTION_END || size < 2 || at + size > length)
			break;
		if (kind == OPTION_SEGMENT && size == 4) {
			__u16 segment = option[2] << 8 | option[3];
			if (segment)
				offer->segment = segment;
		} else if (kind == OPTION_SCALE && size == 3) {
			offer->scale = option[2] > SCALE_MAX ? SCALE_MAX : option[2];
		} else if (kind == OPTION_SACK && size == 2) {
			offer->sack = true;
		} else if (kind == OPTION_TIMESTAMPS && size == 10) {
			__builtin_memcpy(&offer->value, option + 2, 4);
			__builtin_memcpy(&offer->echo, option + 6, 4);
			offer->timestamps = true;
			offer->timestamps_at = at;
		} else if (kind == OPTION_MD5 || kind == OPTION_AO) {
			offer->is_signed = true;
		}
		at += *(volatile __u8 *)(option + 1);
	}
	return 0;
}
