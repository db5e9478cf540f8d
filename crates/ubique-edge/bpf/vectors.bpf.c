/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* For tests only: the encodings, on input and output that stand in a packet. Twin: tests/vectors.rs. */
#include "encoding.h"

char _license[] SEC("license") = "Dual MIT/GPL";

struct vector {
	__u64 key[2];
	struct flow flow;
	__u32 wall_ms;
	__u32 echo;
	__u32 cookie;
	__u32 acknowledgement;
	struct shim shim;
	__u8 id[ID_BYTES];
	__u8 rotation;
	__u8 site;
	__u8 padding[4];
	/* output */
	__u64 hash;
	__u64 shim_tag;
	__u32 timestamp;
	__u32 sequence;
	__u32 cookie_read;
	__u8 site_by_timestamp;
	__u8 site_by_sequence;
	__u8 site_by_id;
	__u8 shim_is_good;
	__u8 site_by_old_timestamp;
	__u8 output_padding[7];
};

SEC("xdp")
int vectors(struct xdp_md *ctx)
{
	struct vector *v = (void *)(long)ctx->data;
	if ((void *)(v + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	struct vector in = *v;
	__u64 hash = flow_hash(in.key, &in.flow);
	v->hash = hash;
	v->timestamp = timestamp_encode(in.wall_ms, in.site, hash);
	v->site_by_timestamp = timestamp_decode(in.echo, in.wall_ms, hash);
	v->site_by_old_timestamp = timestamp_decode_old(in.echo, in.wall_ms, hash);
	v->sequence = sequence_encode(in.site, in.cookie, hash);
	v->site_by_sequence = sequence_decode(in.acknowledgement, hash);
	v->cookie_read = sequence_cookie(in.acknowledgement, hash);
	v->site_by_id = id_decode(in.key, in.rotation, in.id);
	v->shim_tag = shim_tag_of(in.key, &in.shim, hash);
	v->shim_is_good = shim_is_good(in.key, &in.shim, hash, in.wall_ms);
	return XDP_PASS;
}
