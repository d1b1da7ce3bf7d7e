/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where every packet is for a worker (no offload), plain TCP and UDP go into a
 * socket on the pod's own link and are spared the way through the steering
 * port. Whatever else there is, and all of it while no such socket is there,
 * passes on to divert: this is a shorter way, never another judgement.
 *
 * Checksums that a pod left to the hardware are still to be filled in: what
 * XDP sees of a socket buffer doesn't say so, the worker finds out.
 */
#ifndef SLUICE_PODLINK_H
#define SLUICE_PODLINK_H

#include "neighbour.h"
#include "state.h"

/* The worker's socket on the link of a slot. The kernel empties it with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1024); /* set by the agent */
} pod_xsks SEC(".maps");

/* Ports of TCP and UDP at l4; false if they are not there. */
static __always_inline bool plain_ports(struct packet *p, void *l4, void *end)
{
	struct ports *ports = l4;

	if (p->key.proto == IPPROTO_TCP) {
		if (l4 + sizeof(struct tcphdr) > end)
			return false;
	} else if (p->key.proto != IPPROTO_UDP || l4 + sizeof(struct udphdr) > end) {
		return false;
	}
	set_ports(p, ports);
	return true;
}

/* The key of an unfragmented packet of TCP or UDP right after a plain IP header. */
static __always_inline bool plain_key(struct packet *p, __be16 type, void *l3, void *end)
{
	struct ipv6hdr *ip6 = l3;
	struct iphdr *ip = l3;

	if (type == bpf_htons(ETH_P_IP)) {
		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 ||
		    ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
			return false;
		p->key.a = addr_v4(ip->saddr);
		p->key.b = addr_v4(ip->daddr);
		p->key.proto = ip->protocol;
		return plain_ports(p, ip + 1, end);
	}
	if (type != bpf_htons(ETH_P_IPV6) || (void *)(ip6 + 1) > end || ip6->version != 6)
		return false;
	p->key.a = addr_v6(&ip6->saddr);
	p->key.b = addr_v6(&ip6->daddr);
	p->key.proto = ip6->nexthdr;
	return plain_ports(p, ip6 + 1, end);
}

/* The worker that has the socket on a slot's link. */
static __always_inline __u32 link_owner(__u32 slot)
{
	return cfg.workers > 1 ? slot % cfg.workers : 0;
}

SEC("xdp.frags")
int steer_pod(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet p = {};
	struct ethhdr *eth = data;
	struct endpoint *ep;
	__u32 slot, id;
	__u16 sport;

	/* The socket has the first queue; a frame of another one would be lost. */
	if (cfg.offload || ctx->rx_queue_index || (void *)(eth + 1) > end)
		return XDP_PASS;
	ep = endpoint_of(ctx->ingress_ifindex, &slot);
	if (!ep || !bpf_map_lookup_elem(&pod_xsks, &slot) || !mac_equal(eth->h_source, ep->mac))
		return XDP_PASS;
	if (!plain_key(&p, eth->h_proto, eth + 1, end))
		return XDP_PASS;
	sport = p.key.aport;
	id = link_owner(slot);
	if (cfg.workers > 1) {
		canonical(&p);
		if (owner(&p.key) != id)
			return XDP_PASS;
	}
	if (!worker_alive(id, coarse_ns()))
		return XDP_PASS;
	if (cfg.uplinks)
		note_asked(slot, sport);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	eth->h_dest[0] = TAG_BASE | HOOK_FROM_POD;
	eth->h_dest[1] = id;
	eth->h_dest[2] = slot >> 24;
	eth->h_dest[3] = slot >> 16;
	eth->h_dest[4] = slot >> 8;
	eth->h_dest[5] = slot;
	count(COUNT_STEERED);
	return bpf_redirect_map(&pod_xsks, slot, XDP_DROP);
}

#endif
