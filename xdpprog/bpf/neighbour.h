/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ARP (RFC 826), neighbour discovery (RFC 4861) and MLD (RFC 3810): never
 * judged by policy, but a pod may speak for its own addresses only.
 */
#ifndef SLUICE_NEIGHBOUR_H
#define SLUICE_NEIGHBOUR_H

#include "parse.h"

/* RFC 4861 and RFC 3810 message types that linux/icmpv6.h leaves to the kernel. */
#define ND_ROUTER_SOLICIT    133
#define ND_ROUTER_ADVERT     134
#define ND_NEIGHBOUR_SOLICIT 135
#define ND_NEIGHBOUR_ADVERT  136
#define ND_REDIRECT	     137
#define MLD_QUERY	     130
#define MLD_REPORT	     131
#define MLD_DONE	     132
#define MLD2_REPORT	     143

struct arp_eth_ipv4 {
	__be16 hrd, pro;
	__u8 hln, pln;
	__be16 op;
	__u8 sha[ETH_ALEN];
	__u8 spa[4];
	__u8 tha[ETH_ALEN];
	__u8 tpa[4];
} __attribute__((packed, aligned(4)));

/* Both at even addresses. */
static __always_inline bool mac_equal(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const __u16 *)a, *y = (const __u16 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

static __always_inline bool owns(__u32 slot, const struct addr *a)
{
	struct own_addr k = {.addr = *a, .slot = slot};

	return bpf_map_lookup_elem(&own_addrs, &k);
}

/* What follows an ARP packet in the shortest frame of Ethernet must say nothing. */
static __always_inline bool bare_arp(struct __sk_buff *skb)
{
	const __u32 end = ETH_HLEN + sizeof(struct arp_eth_ipv4);
	__u16 pad[(ETH_ZLEN - ETH_HLEN - sizeof(struct arp_eth_ipv4)) / 2], some = 0;

	if (skb->len == end)
		return true;
	if (skb->len != ETH_ZLEN || bpf_skb_load_bytes(skb, end, pad, sizeof(pad)))
		return false;
	for (int i = 0; i < sizeof(pad) / sizeof(pad[0]); i++)
		some |= pad[i];
	return !some;
}

static __always_inline enum drop_reason check_arp(struct __sk_buff *skb, const struct endpoint *ep,
						  __u32 slot)
{
	const __u16 none[3] = {}, all[3] = {0xffff, 0xffff, 0xffff};
	__u8 to[ETH_ALEN] __attribute__((aligned(4)));
	struct arp_eth_ipv4 arp;
	struct addr sender;
	__be32 spa;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)))
		return DROP_TRUNCATED;
	if (arp.hrd != bpf_htons(1) || arp.pro != bpf_htons(ETH_P_IP) || arp.hln != ETH_ALEN ||
	    arp.pln != 4 || (arp.op != bpf_htons(1) && arp.op != bpf_htons(2)) || !bare_arp(skb))
		return DROP_MALFORMED;
	if (!mac_equal(arp.sha, ep->mac))
		return DROP_NEIGHBOUR_SPOOF;
	/* Asking, it has nothing to say of the target's; answering, it says whom. */
	if (bpf_skb_load_bytes(skb, 0, to, sizeof(to)))
		return DROP_TRUNCATED;
	if (!mac_equal(arp.tha, to) && !mac_equal(arp.tha, ep->mac) &&
	    !mac_equal(arp.tha, (const __u8 *)none) && !mac_equal(arp.tha, (const __u8 *)all))
		return DROP_MALFORMED;
	__builtin_memcpy(&spa, arp.spa, sizeof(spa));
	if (!spa) /* address probe, RFC 5227 */
		return DROP_NONE;
	sender = addr_v4(spa);
	return owns(slot, &sender) ? DROP_NONE : DROP_NEIGHBOUR_SPOOF;
}

/* Link-local, a multicast group of the link included. */
static __always_inline bool stays_on_link(const struct in6_addr *a)
{
	const __u8 *b = a->in6_u.u6_addr8;

	return (b[0] == 0xfe && (b[1] & 0xc0) == 0x80) || (b[0] == 0xff && (b[1] & 0x0f) == 2);
}

/* Whether a neighbour is asked for at the address, or the group, that it has. */
static __always_inline bool asks_at(const struct in6_addr *dst, const struct in6_addr *target)
{
	struct addr d = addr_v6(dst), t = addr_v6(target);

	if (d.hi == t.hi && d.lo == t.lo)
		return true;
	/* RFC 4291, section 2.7.1: the solicited-node group, ff02::1:ff00:0/104. */
	return d.hi == 0xff02ULL << 48 && d.lo == (0x1ff000000ULL | (t.lo & 0xffffff));
}

/*
 * Whether a pod's solicitation or advertisement says no more than these must:
 * no policy judges it, so it must carry nothing to another pod. No router looks
 * into one, either, before it forwards it to wherever it is addressed to.
 */
static __always_inline bool bare_nd(struct __sk_buff *skb, const struct endpoint *ep,
				    const struct ipv6hdr *ip6, const struct icmp_head *icmp)
{
	bool neighbour = icmp->type != ND_ROUTER_SOLICIT, ask = icmp->type != ND_NEIGHBOUR_ADVERT;
	__u32 end = ETH_HLEN + sizeof(*ip6) + bpf_ntohs(ip6->payload_len);
	__u32 off = ETH_HLEN + sizeof(*ip6) + sizeof(*icmp);
	struct addr src = addr_v6(&ip6->saddr);
	struct {
		__u8 type, len, mac[ETH_ALEN];
	} opt = {};
	struct in6_addr target = {};

	if (skb->len != end || icmp->seq || icmp->id & (ask ? 0xffff : bpf_htons(0x1fff)))
		return false; /* a trailer, or reserved bits */
	if (neighbour) {
		if (bpf_skb_load_bytes(skb, off, &target, sizeof(target)) ||
		    (ask && !asks_at(&ip6->daddr, &target)))
			return false;
		off += sizeof(target);
	} else if (!stays_on_link(&ip6->daddr)) {
		return false;
	}
	if (end == off)
		return true;
	if (end != off + sizeof(opt) || bpf_skb_load_bytes(skb, off, &opt, sizeof(opt)) ||
	    opt.len != 1)
		return false;
	/* The nonce of enhanced duplicate address detection, RFC 7527. */
	if (opt.type == 14)
		return ask && neighbour && !(src.hi || src.lo);
	return opt.type == (ask ? 1 : 2) && mac_equal(opt.mac, ep->mac);
}

/*
 * Whether a pod's report of its groups is to a group and, as RFC 2710 has it, no
 * longer than it must be; RFC 3810's has a group of its own.
 */
static __always_inline bool bare_mld(struct __sk_buff *skb, const struct ipv6hdr *ip6,
				     const struct icmp_head *icmp, __u32 off)
{
	__u32 end = ETH_HLEN + sizeof(*ip6) + bpf_ntohs(ip6->payload_len);
	struct addr dst = addr_v6(&ip6->daddr);

	if (skb->len != end)
		return false;
	if (icmp->type == MLD2_REPORT) /* ff02::16 */
		return dst.hi == 0xff02000000000000ULL && dst.lo == 0x16;
	return dst.hi >> 56 == 0xff && end == off + sizeof(*icmp) + sizeof(struct in6_addr);
}

/*
 * Whether a router may forward a pod's solicitation or advertisement: between addresses
 * beyond the link, which are not in one /64, if this node has no pod at the other.
 */
static __always_inline bool may_leave(const struct ipv6hdr *ip6)
{
	struct addr src = addr_v6(&ip6->saddr), dst = addr_v6(&ip6->daddr);

	return !stays_on_link(&ip6->saddr) && !stays_on_link(&ip6->daddr) && src.hi != dst.hi &&
	       (src.hi || src.lo) && !bpf_map_lookup_elem(&pods, &dst);
}

/*
 * Whether an IPv6 packet is neighbour discovery or MLD; its fate is in *fate.
 * MLD comes behind a hop-by-hop header with a router alert. A pod is no router:
 * it asks nobody for members, and others' reports are nothing to it. What may leave
 * the node is a worker's, which knows the node's own addresses.
 */
static __always_inline bool neighbour_v6(struct __sk_buff *skb, const struct endpoint *ep,
					 __u32 slot, enum hook hook, enum drop_reason *fate)
{
	struct icmp_head icmp;
	__u32 off = ETH_HLEN + sizeof(struct ipv6hdr);
	struct in6_addr target;
	struct ipv6_opt_hdr opt;
	struct ipv6hdr ip6;
	struct addr src;
	__u8 proto;

	*fate = DROP_NONE;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip6, sizeof(ip6)))
		return false;
	proto = ip6.nexthdr;
	if (proto == IPPROTO_HOPOPTS) {
		if (bpf_skb_load_bytes(skb, off, &opt, sizeof(opt)) || opt.hdrlen)
			return false;
		proto = opt.nexthdr;
		off += 8;
	}
	if (proto != IPPROTO_ICMPV6 || bpf_skb_load_bytes(skb, off, &icmp, sizeof(icmp)))
		return false;
	src = addr_v6(&ip6.saddr);
	switch (icmp.type) {
	case MLD_QUERY:
		if (hook == HOOK_FROM_POD)
			*fate = DROP_REDIRECT;
		else if (ip6.hop_limit != 1)
			*fate = DROP_MALFORMED;
		break;
	case MLD_REPORT:
	case MLD_DONE:
	case MLD2_REPORT:
		/* Link-local only: hop limit 1, to a multicast group or a router. */
		if (ip6.hop_limit != 1)
			*fate = DROP_MALFORMED;
		else if (hook == HOOK_TO_POD)
			*fate = DROP_MISDIRECTED;
		else if (!bare_mld(skb, &ip6, &icmp, off))
			*fate = DROP_MALFORMED;
		break;
	case ND_ROUTER_ADVERT:
		if (hook == HOOK_FROM_POD)
			*fate = DROP_REDIRECT;
		break;
	case ND_REDIRECT:
		*fate = DROP_REDIRECT;
		break;
	case ND_NEIGHBOUR_ADVERT:
		if (bpf_skb_load_bytes(skb, off + sizeof(icmp), &target, sizeof(target))) {
			*fate = DROP_TRUNCATED;
			break;
		}
		if (hook == HOOK_FROM_POD) {
			struct addr t = addr_v6(&target);

			if (!owns(slot, &t))
				*fate = DROP_NEIGHBOUR_SPOOF;
		}
		break;
	case ND_ROUTER_SOLICIT:
	case ND_NEIGHBOUR_SOLICIT:
		break;
	default:
		return false;
	}
	if (icmp.type >= ND_ROUTER_SOLICIT && icmp.type <= ND_REDIRECT &&
	    (ip6.hop_limit != 255 || icmp.code || proto != ip6.nexthdr))
		*fate = DROP_MALFORMED;
	if (*fate == DROP_NONE && hook == HOOK_FROM_POD && icmp.type >= ND_ROUTER_SOLICIT &&
	    icmp.type <= ND_REDIRECT && !bare_nd(skb, ep, &ip6, &icmp))
		*fate = DROP_MALFORMED;
	if (*fate == DROP_NONE && hook == HOOK_FROM_POD && (src.hi || src.lo) && !owns(slot, &src))
		*fate = DROP_NEIGHBOUR_SPOOF;
	return *fate || hook != HOOK_FROM_POD || icmp.type < ND_ROUTER_SOLICIT || !may_leave(&ip6);
}

#endif
