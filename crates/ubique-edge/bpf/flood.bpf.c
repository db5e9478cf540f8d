/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* For measurements only: a flood of SYNs from random addresses of 10.0.0.0/8 (BPF_F_TEST_XDP_LIVE_FRAMES), and where answers end. */
#include "kernel.h"

char _license[] SEC("license") = "Dual MIT/GPL";

#define FRAME 74

struct frame {
	__u64 words[FRAME / 8];
	__u16 last;
} __attribute__((packed));

/* Twin in src/loader/flood.rs. */
struct flood {
	/* Without source, port, sequence number and checksums. */
	__u8 frame[96];
	/* Of what is summed up in each checksum, the rest. */
	__u32 ip_sum;
	__u32 tcp_sum;
	__u32 interface;
};

const volatile struct flood flood = {};

static __always_inline __u16 checksum(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

SEC("xdp")
int ubique_flood(struct xdp_md *ctx)
{
	struct frame *frame = (void *)(long)ctx->data;
	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	const struct frame *template = (void *)flood.frame;
	/* Or clang takes it for what it is here: zeros. */
	asm volatile("" : "+r"(template));
	/* Frames are used again, and are answers by then. */
	*frame = *template;
	struct iphdr *ip = (void *)frame + ETH_HLEN;
	struct tcphdr *tcp = (void *)(ip + 1);
	__u32 random = bpf_get_prandom_u32(), more = bpf_get_prandom_u32();
	__u32 source = (random & ~0xffu) | 10;
	__u16 port = more | 1;
	ip->saddr = source;
	ip->check = checksum((__u64)flood.ip_sum + source);
	tcp->source = port;
	tcp->seq = more;
	tcp->check = checksum((__u64)flood.tcp_sum + source + port + more);
	return bpf_redirect(flood.interface, 0);
}

SEC("xdp")
int ubique_sink(struct xdp_md *ctx)
{
	struct iphdr *ip = (void *)(long)ctx->data + ETH_HLEN;
	if ((void *)(ip + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	return ip->version == 4 && (ip->daddr & 0xff) == 10 ? XDP_DROP : XDP_PASS;
}
