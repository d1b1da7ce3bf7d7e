/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * uplink_steer: XDP on a NIC of the node. It drops what the cache of denied
 * flows names before the kernel spends a buffer on it, and has a worker judge
 * what opens a flow to a pod. All else passes, and whatever passes is judged at
 * the pod's link: enforcement never depends on this program, so whenever it is
 * in doubt, it passes.
 *
 * It sees packets before the host translates them. Only what can't be a reply
 * that the host will translate back is judged here: pure SYNs, echo requests,
 * and what comes to a port that the pod has never opened a flow from.
 */
#ifndef SLUICE_UPLINK_H
#define SLUICE_UPLINK_H

#include "neighbour.h"
#include "state.h"

/* Finds the flow of a packet without options, extension headers or fragments. */
static __always_inline bool uplink_parse(struct packet *p, void *data, void *end)
{
	struct ethhdr *eth = data;
	struct icmp_head *icmp;
	struct ports *ports;
	struct tcphdr *tcp;
	void *l4;

	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + ETH_HLEN;

		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 ||
		    ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
			return false;
		p->key.a = addr_v4(ip->saddr);
		p->key.b = addr_v4(ip->daddr);
		p->key.proto = ip->protocol;
		l4 = ip + 1;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = data + ETH_HLEN;

		if ((void *)(ip6 + 1) > end || ip6->version != 6)
			return false;
		p->v6 = true;
		p->key.a = addr_v6(&ip6->saddr);
		p->key.b = addr_v6(&ip6->daddr);
		if (addr_is_mapped(&p->key.a) || addr_is_mapped(&p->key.b))
			return false;
		p->key.proto = ip6->nexthdr;
		l4 = ip6 + 1;
	} else {
		return false;
	}
	switch (p->key.proto) {
	case IPPROTO_TCP:
		tcp = l4;
		if ((void *)(tcp + 1) > end || tcp->doff < 5)
			return false;
		p->tcp_flags = ((__u8 *)tcp)[13];
		p->opening = (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
		/* fallthrough */
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		ports = l4;
		if ((void *)(ports + 1) > end)
			return false;
		set_ports(p, ports);
		return true;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		icmp = l4;
		if ((p->key.proto == IPPROTO_ICMPV6) != p->v6 || (void *)(icmp + 1) > end ||
		    icmp->type != (p->v6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO) || icmp->code)
			return false;
		p->key.aport = p->key.bport = bpf_ntohs(icmp->id);
		p->opening = true;
		return true;
	}
	return false;
}

/* Whether the cache of denied flows says so, as at the pod's link. */
static __always_inline bool uplink_denied(const struct packet *p, __u32 slot, __u64 now,
					  __u64 length)
{
	struct deny_value *d = bpf_map_lookup_elem(&denied, &p->key);

	if (!d || !(d->sides & 1 << (p->side & 1)) || d->slot[(p->side & 1) ^ 1] != slot ||
	    !current(d->slot, d->gen) || !denied_lately(d, now))
		return false;
	__sync_fetch_and_add(&d->packets, 1);
	__sync_fetch_and_add(&d->bytes, length);
	return true;
}

static __always_inline int uplink_pass(void)
{
	count(COUNT_UPLINK_PASSED);
	return XDP_PASS;
}

static __always_inline bool uplink_knows_pair(const struct packet *p)
{
	struct admit_key k = {};

	k.src = p->side == SIDE_A ? p->key.a : p->key.b;
	k.dst = p->side == SIDE_A ? p->key.b : p->key.a;
	k.proto = p->key.proto;
	k.hook = HOOK_TO_POD;
	if (k.proto != IPPROTO_ICMP && k.proto != IPPROTO_ICMPV6)
		k.dport = p->side == SIDE_A ? p->key.bport : p->key.aport;
	return bpf_map_lookup_elem(&admits, &k);
}

SEC("xdp.frags")
int uplink_steer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 ifindex = ctx->ingress_ifindex, queue = ctx->rx_queue_index, *slot;
	struct ethhdr *eth = data;
	struct packet p = {};
	struct endpoint *ep;
	struct uplink *up;
	__u64 now, length;

	up = bpf_map_lookup_elem(&uplinks, &ifindex);
	if (!up || (void *)(eth + 1) > end || !mac_equal(eth->h_dest, up->mac) ||
	    !uplink_parse(&p, data, end))
		return XDP_PASS;
	slot = bpf_map_lookup_elem(&pods, &p.key.b);
	if (!slot)
		return XDP_PASS;
	/* Port and address of the pod; canonical may swap the ends. */
	if (!p.opening && has_asked(*slot, p.key.bport))
		return uplink_pass();
	canonical(&p);
	now = bpf_ktime_get_coarse_ns();
	ep = bpf_map_lookup_elem(&endpoints, slot);
	if (!ep || !ep->gen || queue >= up->queues || !worker_alive(queue % cfg.workers, now))
		return uplink_pass();
	length = end - data;
	if (cfg.offload) {
		if (bpf_map_lookup_elem(&flows, &p.key))
			return uplink_pass();
		if (uplink_denied(&p, *slot, now, length)) {
			count_drop(DROP_POLICY);
			add_traffic(HOOK_TO_POD | TRAFFIC_DENIED, 1, length);
			count(COUNT_UPLINK_DENIED);
			return XDP_DROP;
		}
		if (uplink_knows_pair(&p))
			return uplink_pass();
	} else if (!p.opening) {
		return uplink_pass();
	}
	/* A packet of several buffers, or of more than a frame takes. */
	if (length > up->room)
		return uplink_pass();
	if (cfg.xdp_frags && bpf_xdp_get_buff_len(ctx) != length)
		return uplink_pass();
	if (cfg.offload && !within_budget(*slot, HOOK_TO_POD, now)) {
		count_drop(DROP_RATE_LIMITED);
		return XDP_DROP;
	}
	count(COUNT_UPLINK_STEERED);
	return bpf_redirect_map(&uplink_xsks, up->base + queue, XDP_PASS);
}

#endif
