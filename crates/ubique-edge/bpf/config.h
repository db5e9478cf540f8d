/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the agent tells the programs. Twins in src/layout.rs, whose size and offsets a test compares with the object's BTF. */
#pragma once

#include "encoding.h"

#define PREFIXES_MAX 16
#define PORTS_MAX 16
#define ID_KEYS_MAX 2
#define FLOWS_MAX 65536

struct prefix_v4 {
	__be32 network;
	__be32 mask;
};

struct prefix_v6 {
	__u64 network[2];
	__u64 mask[2];
};

/* Fixed while a program is loaded: the verifier takes it for constants and drops what is never used. */
struct config {
	__u64 flow_key[2];
	__u64 shim_key[2];
	__u64 cookie_key[2];
	__u64 id_keys[ID_KEYS_MAX][2];
	/* The wall clock at the kernel's monotonic 0, ms since 1970, as encoded: must not change while connections live. */
	__u64 clock_base_ms;
	/* Between two packets from one other site; between two probes that begin here; ns. */
	__u64 budget_interval_ns;
	__u64 probe_interval_ns;
	/* Between two of the kernel's jiffies. */
	__u64 tick_ns;
	struct prefix_v6 prefixes_v6[PREFIXES_MAX];
	struct prefix_v4 prefixes_v4[PREFIXES_MAX];
	__u32 count_v6;
	__u32 count_v4;
	/* Our own addresses, where packets of other sites arrive; 0: none. */
	__u32 unicast_v6[4];
	__be32 unicast_v4;
	__be16 port;
	/* The smallest MTU between sites, octets of IP. */
	__u16 mtu;
	__u16 tcp_ports[PORTS_MAX];
	__u16 quic_ports[PORTS_MAX];
	__u32 count_tcp_ports;
	__u32 count_quic_ports;
	__u8 id_rotations[ID_KEYS_MAX];
	__u8 count_id_keys;
	__u8 site;
	/* Tier 2: timestamps are rewritten on their way out and back. */
	__u8 rewrite;
	/* Tier 1: SYNs are answered by our cookies. */
	__u8 cookies;
	/* Replies travel through the site that got the client's packet. */
	__u8 reply_through;
	__u8 padding;
};

/* Changes while a program runs. */
struct live {
	/* The wall clock at the kernel's monotonic 0, ms since 1970, as it is now. */
	__u64 wall_base_ms;
	/* The jiffy of the kernel's monotonic 0, or the one after it. */
	__u64 tick_at_0;
	/* Sites that are up, bit n for site n; never our own. */
	__u64 up;
	/* Where new connections go, or NO_SITE. */
	__u8 drain_to;
	/* The kernel would lose what a cookie says: it answers SYNs itself. */
	__u8 no_cookies;
	__u8 padding[6];
};

enum site_state {
	SITE_UNKNOWN,
	SITE_UP,
	SITE_DOWN,
};

/* Octets of a template: Ethernet and IPv6 header, in whole words. */
#define TEMPLATE_WORDS 7

/* Where and how packets for a site leave. */
struct site {
	/* Ethernet and IP header before a packet for it: no length yet, and of IPv4 the checksum without it. */
	__u64 template[TEMPLATE_WORDS];
	/* Its unicast address, where its own packets come from. */
	__u32 address[4];
	__u32 interface;
	/* enum site_state */
	__u8 state;
	/* Of the address: 4 or 6. */
	__u8 family;
	__u8 padding[2];
	/* When its next packet to us would be on time (GCRA: a theoretical arrival time), ns. The programs' own. */
	__u64 due_ns;
};

/* One for each decision; names in src/counters.rs, in this order. */
enum counter {
	COUNT_LOCAL_TIMESTAMP,
	COUNT_LOCAL_SOCKET,
	COUNT_LOCAL_SEQUENCE,
	COUNT_LOCAL_ID,
	COUNT_SYN,
	COUNT_SYN_TIMESTAMPS,
	COUNT_SYN_COOKIE,
	COUNT_SYN_KERNEL,
	COUNT_COOKIE_ACCEPTED,
	COUNT_COOKIE_REFUSED,
	COUNT_FORWARD_TIMESTAMP,
	COUNT_FORWARD_SEQUENCE,
	COUNT_FORWARD_CACHE,
	COUNT_FORWARD_ID,
	COUNT_FORWARD_PROBE,
	COUNT_FORWARD_NEW,
	COUNT_FORWARD_ICMP,
	COUNT_FORWARD_REPLY,
	COUNT_OWNER_DOWN,
	COUNT_NO_ROUTE,
	COUNT_TOO_BIG,
	COUNT_PROBE_LIMITED,
	COUNT_UNOWNED,
	COUNT_QUIC_NEW,
	COUNT_FRAGMENT,
	COUNT_SHIM_DATA,
	COUNT_SHIM_PROBE,
	COUNT_SHIM_PROBE_MINE,
	COUNT_SHIM_NEW,
	COUNT_SHIM_MINE,
	COUNT_SHIM_REPLY,
	COUNT_SHIM_ALIVE,
	COUNT_SHIM_FORGED,
	COUNT_SHIM_STRANGER,
	COUNT_SHIM_BUDGET,
	COUNT_SHIM_MALFORMED,
	COUNTERS,
};

