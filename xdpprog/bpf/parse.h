/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Just enough parsing to find a packet's flow. What is plain is looked up in
 * the flow cache; what is not goes to a worker, whose parser has the last word.
 * The key of a packet that is not plain only chooses the worker: the one that
 * owns its flow.
 */
#ifndef SLUICE_PARSE_H
#define SLUICE_PARSE_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"

#define IP_MF		0x2000
#define IP_OFFSET	0x1fff
#define TCP_FIN		0x01
#define TCP_SYN		0x02
#define TCP_RST		0x04
#define TCP_ACK		0x10
#define MAX_EXT_HEADERS 8

struct packet {
	struct flow_key key;
	__u8 side; /* that sent it */
	__u8 tcp_flags;
	bool opening; /* pure SYN, echo request */
	bool plain;   /* the key is the flow's, all of it */
	bool v6;
};

/* RFC 792, RFC 4443; linux/icmp.h drags libc's headers in. */
#define ICMP_ECHOREPLY	    0
#define ICMP_DEST_UNREACH   3
#define ICMP_SOURCE_QUENCH  4
#define ICMP_ECHO	    8
#define ICMP_TIME_EXCEEDED  11
#define ICMP_PARAMETERPROB  12
#define ICMPV6_INFO	    128 /* below: errors */
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY   129

struct icmp_head {
	__u8 type, code;
	__be16 sum;
	__be16 id, seq;
};

struct ports {
	__be16 source, dest;
};

struct frag_hdr {
	__u8 nexthdr, reserved;
	__be16 frag_off;
	__be32 id;
};

struct l4 {
	__u32 off;
	__u8 proto;
	bool inner; /* quoted by an ICMP error: choose the quoted flow's worker */
};

static __always_inline struct addr addr_v4(__be32 a)
{
	struct addr r = {.hi = 0, .lo = 0xffffULL << 32 | bpf_ntohl(a)};

	return r;
}

static __always_inline struct addr addr_v6(const struct in6_addr *a)
{
	struct addr r = {
		.hi = (__u64)bpf_ntohl(a->in6_u.u6_addr32[0]) << 32 |
		      bpf_ntohl(a->in6_u.u6_addr32[1]),
		.lo = (__u64)bpf_ntohl(a->in6_u.u6_addr32[2]) << 32 |
		      bpf_ntohl(a->in6_u.u6_addr32[3]),
	};
	return r;
}

static __always_inline bool addr_is_mapped(const struct addr *a)
{
	return a->hi == 0 && a->lo >> 32 == 0xffff;
}

/* Puts the ends in order; key.a and key.aport hold the source before. */
static __always_inline void canonical(struct packet *p)
{
	struct flow_key *k = &p->key;
	bool swap;

	if (k->a.hi != k->b.hi)
		swap = k->a.hi > k->b.hi;
	else if (k->a.lo != k->b.lo)
		swap = k->a.lo > k->b.lo;
	else
		swap = k->aport > k->bport;
	p->side = SIDE_A;
	if (swap) {
		struct addr a = k->a;
		__u16 port = k->aport;

		k->a = k->b;
		k->b = a;
		k->aport = k->bport;
		k->bport = port;
		p->side = SIDE_B;
	}
}

static __always_inline void set_ports(struct packet *p, const struct ports *ports)
{
	p->key.aport = bpf_ntohs(ports->source);
	p->key.bport = bpf_ntohs(ports->dest);
}

/*
 * As bpf_skb_load_bytes, but without a call where the packet can be read in place,
 * as its headers nearly always can. to is aligned to 4 bytes; len is even.
 */
static __always_inline int load(struct __sk_buff *skb, __u32 off, void *to, __u32 len)
{
	void *from = (void *)(long)skb->data + (off & 0x7f);

	if (off > 0x7f || from + len > (void *)(long)skb->data_end)
		return bpf_skb_load_bytes(skb, off, to, len);
#pragma unroll
	for (__u32 i = 0; i + 4 <= len; i += 4)
		*(__u32 *)(to + i) = *(__u32 *)(from + i);
	if (len & 2)
		*(__u16 *)(to + len - 2) = *(__u16 *)(from + len - 2);
	return 0;
}

static __always_inline bool has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

static __always_inline bool ext_header(__u8 h)
{
	return h == IPPROTO_HOPOPTS || h == IPPROTO_ROUTING || h == IPPROTO_DSTOPTS ||
	       h == IPPROTO_AH;
}

/* Skips extension headers; false if they don't end where they should. Rare, so a call. */
static __noinline bool skip_ext_headers(struct __sk_buff *skb, __u8 *proto, __u32 *off)
{
	struct ipv6_opt_hdr opt;

#pragma unroll
	for (int i = 0; i < MAX_EXT_HEADERS; i++) {
		if (!ext_header(*proto))
			return true;
		if (bpf_skb_load_bytes(skb, *off, &opt, sizeof(opt)))
			return false;
		*off += *proto == IPPROTO_AH ? ((__u32)opt.hdrlen + 2) * 4
					     : ((__u32)opt.hdrlen + 1) * 8;
		*proto = opt.nexthdr;
	}
	return !ext_header(*proto);
}

/* The packet that an ICMP error quotes: only addresses and ports, for the hash. */
static __always_inline void parse_quoted(struct __sk_buff *skb, struct packet *p, __u32 off,
					 bool v6)
{
	struct ports ports = {};
	__u8 proto;

	if (v6) {
		struct ipv6hdr ip6;

		if (bpf_skb_load_bytes(skb, off, &ip6, sizeof(ip6)))
			return;
		p->key.a = addr_v6(&ip6.saddr);
		p->key.b = addr_v6(&ip6.daddr);
		proto = ip6.nexthdr;
		off += sizeof(ip6);
		if (!skip_ext_headers(skb, &proto, &off))
			return;
		if (proto == IPPROTO_FRAGMENT) {
			struct frag_hdr fh;

			if (bpf_skb_load_bytes(skb, off, &fh, sizeof(fh)))
				return;
			proto = fh.nexthdr;
			off += sizeof(fh);
		}
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)))
			return;
		p->key.a = addr_v4(ip.saddr);
		p->key.b = addr_v4(ip.daddr);
		proto = ip.protocol;
		off += (__u32)ip.ihl * 4;
	}
	p->key.proto = proto;
	p->key.aport = p->key.bport = 0;
	if (has_ports(proto)) {
		if (!bpf_skb_load_bytes(skb, off, &ports, sizeof(ports)))
			set_ports(p, &ports);
	} else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
		struct icmp_head icmp;

		if (!bpf_skb_load_bytes(skb, off, &icmp, sizeof(icmp)))
			p->key.aport = p->key.bport = bpf_ntohs(icmp.id);
	}
}

static __always_inline void parse_icmp(struct __sk_buff *skb, struct packet *p, __u32 off, bool v6)
{
	struct icmp_head icmp;
	bool echo, reply, error;

	p->plain = false;
	if (bpf_skb_load_bytes(skb, off, &icmp, sizeof(icmp)))
		return;
	if (v6) {
		echo = icmp.type == ICMPV6_ECHO_REQUEST;
		reply = icmp.type == ICMPV6_ECHO_REPLY;
		error = icmp.type < ICMPV6_INFO;
	} else {
		echo = icmp.type == ICMP_ECHO;
		reply = icmp.type == ICMP_ECHOREPLY;
		error = icmp.type == ICMP_DEST_UNREACH || icmp.type == ICMP_TIME_EXCEEDED ||
			icmp.type == ICMP_PARAMETERPROB || icmp.type == ICMP_SOURCE_QUENCH;
	}
	if (error) {
		parse_quoted(skb, p, off + sizeof(icmp), v6);
		return;
	}
	if (!echo && !reply)
		return;
	p->key.aport = p->key.bport = bpf_ntohs(icmp.id);
	p->opening = echo;
	p->plain = icmp.code == 0;
}

/* The transport header at off, of an unfragmented packet or a first fragment. */
static __always_inline void parse_l4(struct __sk_buff *skb, struct packet *p, __u32 off)
{
	struct ports ports __attribute__((aligned(4)));

	if (p->key.proto == IPPROTO_TCP) {
		struct tcphdr tcp;

		if (load(skb, off, &tcp, sizeof(tcp))) {
			p->plain = false;
			return;
		}
		p->key.aport = bpf_ntohs(tcp.source);
		p->key.bport = bpf_ntohs(tcp.dest);
		p->tcp_flags = ((__u8 *)&tcp)[13];
		p->opening = (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
		if (tcp.doff < 5)
			p->plain = false;
		return;
	}
	if (has_ports(p->key.proto)) {
		if (load(skb, off, &ports, sizeof(ports)))
			p->plain = false;
		else
			set_ports(p, &ports);
		return;
	}
	if (p->key.proto == IPPROTO_ICMP && !p->v6)
		parse_icmp(skb, p, off, false);
	else if (p->key.proto == IPPROTO_ICMPV6 && p->v6)
		parse_icmp(skb, p, off, true);
	else if (p->key.proto == IPPROTO_ICMP || p->key.proto == IPPROTO_ICMPV6)
		p->plain = false;
}

/*
 * Gives a fragment the ports of its datagram. TCP fragments are never plain:
 * the worker checks what they may overlap.
 */
static __always_inline void parse_fragment(struct __sk_buff *skb, struct packet *p, __u32 off,
					   __u32 slot, __u32 id, bool first)
{
	struct frag_key k = {
		.src = p->key.a,
		.dst = p->key.b,
		.id = id,
		.slot = slot,
		.proto = p->key.proto,
	};
	__u32 both, *known;

	if (first) {
		parse_l4(skb, p, off);
		both = (__u32)p->key.aport << 16 | p->key.bport;
		bpf_map_update_elem(&frags, &k, &both, BPF_ANY);
	} else {
		known = bpf_map_lookup_elem(&frags, &k);
		if (known) {
			p->key.aport = *known >> 16;
			p->key.bport = *known & 0xffff;
		} else {
			p->plain = false;
		}
	}
	if (p->key.proto != IPPROTO_UDP)
		p->plain = false;
}

static __always_inline bool parse_ipv4(struct __sk_buff *skb, struct packet *p, __u32 slot)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
	__u16 frag;
	__u32 off;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return false;
	p->key.a = addr_v4(ip->saddr);
	p->key.b = addr_v4(ip->daddr);
	p->key.proto = ip->protocol;
	p->plain = ip->ihl == 5 && ip->version == 4;
	frag = bpf_ntohs(ip->frag_off) & (IP_MF | IP_OFFSET);
	off = ETH_HLEN + (__u32)ip->ihl * 4;
	if (frag)
		parse_fragment(skb, p, off, slot, bpf_ntohs(ip->id), !(frag & IP_OFFSET));
	else
		parse_l4(skb, p, off);
	return true;
}

static __always_inline bool parse_ipv6(struct __sk_buff *skb, struct packet *p, __u32 slot)
{
	struct ipv6hdr *ip6 = (void *)(long)skb->data + ETH_HLEN;
	__u32 off = ETH_HLEN + sizeof(*ip6);
	struct frag_hdr fh;
	__u8 proto;

	if ((void *)(ip6 + 1) > (void *)(long)skb->data_end)
		return false;
	p->v6 = true;
	p->key.a = addr_v6(&ip6->saddr);
	p->key.b = addr_v6(&ip6->daddr);
	p->plain = ip6->version == 6 && !addr_is_mapped(&p->key.a) && !addr_is_mapped(&p->key.b);
	proto = ip6->nexthdr;
	if (ext_header(proto)) {
		p->plain = false;
		if (!skip_ext_headers(skb, &proto, &off))
			return true;
	}
	if (proto == IPPROTO_FRAGMENT) {
		if (bpf_skb_load_bytes(skb, off, &fh, sizeof(fh))) {
			p->plain = false;
			return true;
		}
		off += sizeof(fh);
		proto = fh.nexthdr;
		p->key.proto = proto;
		if (ext_header(proto))
			p->plain = false;
		parse_fragment(skb, p, off, slot, bpf_ntohl(fh.id), !(fh.frag_off & bpf_htons(~7)));
		return true;
	}
	p->key.proto = proto;
	parse_l4(skb, p, off);
	return true;
}

/* The worker that owns a flow; the agent computes the same (Owner in Go). */
static __always_inline __u32 owner(const struct flow_key *k)
{
	__u64 h;

	if (cfg.workers <= 1)
		return 0;
	h = cfg.hash_seed;
	h = (h ^ k->a.lo) * 0x9e3779b97f4a7c15ULL;
	h = (h ^ (h >> 32) ^ k->b.lo) * 0xbf58476d1ce4e5b9ULL;
	h = (h ^ (h >> 32) ^ k->a.hi) * 0x94d049bb133111ebULL;
	h = (h ^ (h >> 32) ^ k->b.hi) * 0x9e3779b97f4a7c15ULL;
	h = (h ^ (h >> 32) ^ ((__u64)k->aport << 24 | (__u64)k->bport << 8 | k->proto)) *
	    0xbf58476d1ce4e5b9ULL;
	return (__u32)(((h >> 32) * cfg.workers) >> 32);
}

#endif
