/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The same as base.bpf.c, with connections begun by our own SYN cookies (tier 1). Linux 6.9, which adopts sequence number and clock of
 * timestamps of whoever answered the SYN: both say the site, and no packet afterwards is changed by anybody.
 *
 * `ubique_ingress` makes SYN-ACKs (answer.h); `ubique_adopt` (tc) shows the kernel the connection when the client's first acknowledgement
 * arrives. Nothing is kept in between. All in one object: a program of another one, called through a map, would be lost with the agent.
 */
#define COOKIES
#include "base.bpf.c"

/* What was adopted last, by connection: one that follows on its heels must not be adopted twice. */
#define RECENT 256
#define RECENT_NS 10000000ULL

struct recent {
	/* Of the connection, and the cookie. */
	__u64 name;
	__u64 time_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RECENT);
	__type(key, __u32);
	__type(value, struct recent);
} recent SEC(".maps");

/*
 * The kernel takes packets through tc in batches before TCP sees the first of them: data right behind the first acknowledgement would find
 * the listener, too, and be dropped as a second connection of the same name. Noted for a moment, it passes, and finds the connection. By its
 * cookie, too: the client may be done and begin anew from the same port in that moment.
 */
static __always_inline bool is_recent(__u64 name)
{
	__u32 key = name % RECENT;
	struct recent *last = bpf_map_lookup_elem(&recent, &key);
	return last && last->name == name && bpf_ktime_get_ns() - last->time_ns < RECENT_NS;
}

static __always_inline void note_recent(__u64 name)
{
	__u32 key = name % RECENT;
	struct recent *last = bpf_map_lookup_elem(&recent, &key);
	if (last) {
		last->name = name;
		last->time_ns = bpf_ktime_get_ns();
	}
}

/* An acknowledgement that may be a cookie, as far as it is read. */
struct acknowledgement {
	struct flow flow;
	__u64 hash;
	__u32 number;
	/* The client's initial sequence number. */
	__u32 client;
	__u32 l4;
	/* Octets of options. */
	__u32 length;
	/* The options are timestamps alone, or nothing: no need to look before the cookie is known to be right. */
	bool plain;
	__u8 padding[7];
};

static __always_inline bool is_good(const struct acknowledgement *ack, bool timestamps)
{
	return cookie_is_good(config.cookie_key, ack->hash, ack->client, sequence_cookie(ack->number, ack->hash), timestamps,
			      clock_ms());
}

/* What our cookie, which is good, says both sides agreed on. False: the echo is not one of these days. */
static __always_inline bool recall(const struct acknowledgement *ack, const struct offer *offer, struct bpf_tcp_req_attrs *attrs)
{
	__u8 agreed = cookie_agreed(sequence_cookie(ack->number, ack->hash), offer->timestamps), scale = agreed_scale(agreed);
	attrs->mss = segment_size(ack->flow.family, agreed >> AGREED_SEGMENT_SHIFT);
	attrs->sack_ok = !!(agreed & AGREED_SACK);
	if (scale != NO_SCALE) {
		attrs->wscale_ok = true;
		attrs->snd_wscale = scale;
		attrs->rcv_wscale = WINDOW_SCALE;
	}
	if (offer->timestamps) {
		__u32 said = timestamp_encode(clock_ms(), config.site, ack->hash);
		attrs->tstamp_ok = true;
		attrs->rcv_tsval = bpf_ntohl(offer->value);
		/* Not the echo: the kernel's clock shall say what ours says at this moment, not what it said a round trip ago. */
		attrs->rcv_tsecr = said;
		return echo_is_recent(bpf_ntohl(offer->echo), said);
	}
	return true;
}

/* Gives the packet to the listener with a request for it, unless the connection is there already. */
static __noinline int assign(struct __sk_buff *skb, const struct flow *flow, __u64 name, struct bpf_tcp_req_attrs *attrs)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size = fill_tuple(&tuple, flow);
	struct bpf_sock *found = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!found)
		return TC_ACT_UNSPEC;
	int action = TC_ACT_UNSPEC;
	if (found->state == TCP_LISTEN && !is_recent(name)) {
		struct tcp_sock *socket = bpf_skc_to_tcp_sock(found);
		/* The kernel is as silent when the queue is full: the client sends again. */
		if (socket && is_full(socket)) {
			action = TC_ACT_SHOT;
		} else if (socket && !bpf_sk_assign_tcp_reqsk(skb, (struct sock *)socket, attrs, sizeof(*attrs))) {
			note_recent(name);
			count(COUNT_COOKIE_ACCEPTED);
		} else {
			count(COUNT_COOKIE_REFUSED);
		}
	}
	bpf_sk_release(found);
	return action;
}

/* The acknowledgement number is an initial one of this site's. */
static __noinline int consider(struct __sk_buff *skb, const struct acknowledgement *ack)
{
	struct offer offer = offer_nothing(ack->flow.family);
	__u32 length = ack->length;
	if (length) {
		struct scratch *scratch = scratch_of_this_processor();
		if (!scratch || length > OPTIONS_LENGTH_MAX ||
		    bpf_skb_load_bytes(skb, ack->l4 + sizeof(struct tcphdr), scratch->options.octets, length))
			return TC_ACT_UNSPEC;
		read_offer(&scratch->options, length, &offer);
	}
	struct bpf_tcp_req_attrs attrs = {};
	if ((ack->plain || is_good(ack, offer.timestamps)) && recall(ack, &offer, &attrs))
		return assign(skb, &ack->flow, ack->hash ^ ack->number, &attrs);
	return TC_ACT_UNSPEC;
}

static __always_inline bool read_acknowledgement(struct acknowledgement *ack, const struct tcphdr *tcp)
{
	if ((tcp_flags(tcp) & (TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK || tcp->doff < 5)
		return false;
	ack->number = bpf_ntohl(tcp->ack_seq);
	ack->client = bpf_ntohl(tcp->seq) - 1;
	ack->length = tcp->doff * 4 - sizeof(*tcp);
	return true;
}

/* The cheapest test first: of an established connection, most numbers fail the first, the rest the second. */
static __always_inline int examine(struct __sk_buff *skb, struct acknowledgement *ack, const struct tcphdr *tcp, void *end)
{
	if (!sequence_is_initial(ack->number, config.site, ack->hash))
		return TC_ACT_UNSPEC;
	const __be32 *options = (void *)(tcp + 1);
	bool timestamps = ack->length == 12 && (void *)(options + 1) <= end && *options == NOP_NOP_TIMESTAMP;
	ack->plain = timestamps || !ack->length;
	if (ack->plain && !is_good(ack, timestamps))
		return TC_ACT_UNSPEC;
	return consider(skb, ack);
}

static __always_inline int adopt_v4(struct __sk_buff *skb, void *data, void *end)
{
	struct iphdr *ip = data + ETHERNET;
	struct tcphdr *tcp = (void *)(ip + 1);
	struct acknowledgement ack = { .l4 = ETHERNET + sizeof(*ip) };
	if ((void *)(tcp + 1) > end || *(__u8 *)ip != 0x45 || ip->protocol != IPPROTO_TCP || ip->frag_off & IP_FRAGMENT ||
	    !is_service_v4(ip->daddr) || !read_acknowledgement(&ack, tcp))
		return TC_ACT_UNSPEC;
	ack.flow.client[0] = ip->saddr;
	ack.flow.service[0] = ip->daddr;
	ack.flow.family = 4;
	__builtin_memcpy(&ack.flow.ports, tcp, 4);
	ack.hash = flow_hash_v4(config.flow_key, ip->saddr, ip->daddr, ack.flow.ports);
	return examine(skb, &ack, tcp, end);
}

static __always_inline int adopt_v6(struct __sk_buff *skb, void *data, void *end)
{
	struct ipv6hdr *ip = data + ETHERNET;
	struct tcphdr *tcp = (void *)(ip + 1);
	struct acknowledgement ack = { .l4 = ETHERNET + sizeof(*ip) };
	if ((void *)(tcp + 1) > end || ip->nexthdr != IPPROTO_TCP)
		return TC_ACT_UNSPEC;
	__builtin_memcpy(ack.flow.client, &ip->saddr, 16);
	__builtin_memcpy(ack.flow.service, &ip->daddr, 16);
	if (!is_service_v6(ack.flow.service) || !read_acknowledgement(&ack, tcp))
		return TC_ACT_UNSPEC;
	ack.flow.family = 6;
	__builtin_memcpy(&ack.flow.ports, tcp, 4);
	ack.hash = flow_hash_v6(config.flow_key, ack.flow.client, ack.flow.service, ack.flow.ports);
	return examine(skb, &ack, tcp, end);
}

SEC("tc")
int ubique_adopt(struct __sk_buff *skb)
{
	const __u32 headers = ETHERNET + sizeof(struct ipv6hdr) + sizeof(struct tcphdr);
	/* Drivers put headers first; what has fewer octets in all than this has no TCP over IPv6 in it. */
	if ((void *)(long)skb->data + headers > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, skb->len < headers ? skb->len : headers);
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet *ethernet = data;
	if ((void *)(ethernet + 1) > end)
		return TC_ACT_UNSPEC;
	if (ethernet->protocol == bpf_htons(ETH_P_IP))
		return adopt_v4(skb, data, end);
	if (ethernet->protocol == bpf_htons(ETH_P_IPV6))
		return adopt_v6(skb, data, end);
	return TC_ACT_UNSPEC;
}
