/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* For measurements only: BPF_PROG_TEST_RUN repeats a program on one packet, so what a program does to it must be undone. */
#include "base.bpf.c"

/* Forwards, and takes the outer packet off again. */
SEC("xdp")
int ubique_forward(struct xdp_md *ctx)
{
	int action = arrives(ctx);
	if (action != XDP_TX)
		return action;
	struct ethernet *ethernet = (void *)(long)ctx->data;
	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	if (bpf_xdp_adjust_head(ctx, ethernet->protocol == bpf_htons(ETH_P_IP) ? OVERHEAD(4) : OVERHEAD(6)))
		return XDP_ABORTED;
	ethernet = (void *)(long)ctx->data;
	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	struct iphdr *ip = (void *)(ethernet + 1);
	if ((void *)(ip + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	ethernet->protocol = ip->version == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	return XDP_TX;
}

/* What undoing costs by itself. */
SEC("xdp")
int ubique_undo(struct xdp_md *ctx)
{
	if (bpf_xdp_adjust_head(ctx, -(int)OVERHEAD(4)))
		return XDP_ABORTED;
	if (bpf_xdp_adjust_head(ctx, OVERHEAD(4)))
		return XDP_ABORTED;
	return XDP_PASS;
}
