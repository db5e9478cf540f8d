/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Sockets that wait for connections: what of the kernel's own is needed to begin one by a cookie (Linux 6.9, its BTF). */
#pragma once

#include "packet.h"

#include <bpf/bpf_core_read.h>

#define RELOCATED __attribute__((preserve_access_index))

struct sock {
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
} RELOCATED;

struct tcp_sock {
	bool is_mptcp;
} RELOCATED;

/* Of include/net/tcp.h: the interface of the kfunc. */
struct bpf_tcp_req_attrs {
	__u32 rcv_tsval;
	__u32 rcv_tsecr;
	__u16 mss;
	__u8 rcv_wscale;
	__u8 snd_wscale;
	__u8 ecn_ok;
	__u8 wscale_ok;
	__u8 sack_ok;
	__u8 tstamp_ok;
	__u8 usec_ts_ok;
	__u8 reserved[3];
};

extern int bpf_sk_assign_tcp_reqsk(struct __sk_buff *skb, struct sock *sk, struct bpf_tcp_req_attrs *attrs, int attrs__sz) __ksym;

/* As sk_acceptq_is_full(): a SYN then is dropped by the kernel. */
static __always_inline bool is_full(struct tcp_sock *socket)
{
	struct sock *base = (void *)socket;
	return base->sk_ack_backlog > base->sk_max_ack_backlog;
}

/* Whether a listener that was looked up is plain, with room for one more. */
static __always_inline bool is_open(struct tcp_sock *socket)
{
	return !(bpf_core_field_exists(socket->is_mptcp) && socket->is_mptcp) && !is_full(socket);
}

/* Whether this connection would be new, to a listener that takes it. */
static __noinline bool find_listener(struct xdp_md *ctx, const struct flow *flow)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size = fill_tuple(&tuple, flow);
	struct bpf_sock *found = bpf_skc_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!found)
		return false;
	bool open = false;
	if (found->state == TCP_LISTEN) {
		struct tcp_sock *socket = bpf_skc_to_tcp_sock(found);
		open = socket && is_open(socket);
	}
	bpf_sk_release(found);
	return open;
}
