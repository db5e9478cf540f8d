/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The configuration, and the maps of the programs. */
#pragma once

#include "config.h"

const volatile struct config config = {};

/* Written by the agent at any time: read each field once. */
struct live live = { .drain_to = NO_SITE };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SITES_MAX);
	__type(key, __u32);
	__type(value, struct site);
} sites SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

/* Owners of connections whose packets do not tell, as the owners said. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS_MAX);
	__type(key, struct flow);
	__type(value, __u8);
} flows SEC(".maps");

/* The way of a connection's replies (config.reply_through). */
struct way {
	/* After the last octet that was sent, if `sent` since the client was last heard. */
	__u32 next;
	/* The site that its client's packets came through last; our own: directly. */
	__u8 through;
	bool sent;
	__u8 padding[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS_MAX);
	__type(key, struct flow);
	__type(value, struct way);
} returns SEC(".maps");

/* What another site asked for and is here: the agent tells it. */
struct found {
	struct flow flow;
	__u8 origin;
	__u8 padding[7];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} found SEC(".maps");

/* What clients without timestamps send first, after SYNs that were left to the kernel: by the hash of the connection, the last of each. */
#define OPENINGS 65536

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OPENINGS);
	__type(key, __u32);
	__type(value, __u32);
} openings SEC(".maps");

/* When the next probe would be on time, ns. */
__u64 probes;
__u64 doubtful_probes;

/* One in so many of the probes there may be is for packets whose timestamps nobody vouches for. */
#define DOUBTFUL_SHARE 10

/* How far a burst may run ahead. */
#define BURST_NS 100000000ULL

static __always_inline void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counts, &counter);
	if (value)
		++*value;
}

/*
 * The monotonic clock, late by up to two ticks. The verifier makes one load of bpf_jiffies64(); bpf_ktime_get_coarse_ns() would be a
 * third of what a packet costs.
 */
static __always_inline __u64 now_ns(void)
{
	return (bpf_jiffies64() - *(volatile __u64 *)&live.tick_at_0) * config.tick_ns;
}

/* The wall clock as timestamps and cookies say it, ms: exact, since the kernel's own timestamps go on from there. */
static __always_inline __u64 clock_ms(void)
{
	return config.clock_base_ms + bpf_ktime_get_ns() / 1000000;
}

/*
 * The lower 32 bits, for comparisons that allow for minutes: 2^20 ns are 1.048576 ms, and 814990 / 2^24 is the rest to 1.2e-8, 4 s in ten
 * years. A division would cost more than all the rest.
 */
static __always_inline __u32 wall_ms(void)
{
	__u64 about_ms = now_ns() >> 20;
	return *(volatile __u64 *)&live.wall_base_ms + about_ms + (about_ms * 814990 >> 24);
}

/* Processors race for `time`; what that lets through is bounded by their number. */
static __always_inline bool is_on_time(__u64 *time, __u64 interval_ns)
{
	__u64 now = now_ns(), due = *time;
	if (due > now + BURST_NS)
		return false;
	*time = (due > now ? due : now) + interval_ns;
	return true;
}

static __always_inline struct site *site_of(__u8 number)
{
	__u32 key = number;
	return bpf_map_lookup_elem(&sites, &key);
}

static __always_inline bool is_service_v4(__be32 address)
{
	for (__u32 i = 0; i < PREFIXES_MAX && i < config.count_v4; i++)
		if ((address & config.prefixes_v4[i].mask) == config.prefixes_v4[i].network)
			return true;
	return false;
}

static __always_inline bool is_service_v6(const __u32 address[4])
{
	__u64 high = address[0] | (__u64)address[1] << 32, low = address[2] | (__u64)address[3] << 32;
	for (__u32 i = 0; i < PREFIXES_MAX && i < config.count_v6; i++) {
		const volatile struct prefix_v6 *prefix = &config.prefixes_v6[i];
		if ((high & prefix->mask[0]) == prefix->network[0] && (low & prefix->mask[1]) == prefix->network[1])
			return true;
	}
	return false;
}
