// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * divert: at both ends of a pod's host-side link; acts on flows that it knows
 *         and sends the others to a worker.
 * steer:  XDP on the worker's end of a steering port; into its AF_XDP socket.
 * steer_pod: XDP on a pod's host-side link, in podlink.h: a shorter way up.
 * deliver: at the kernel's end of a steering port; carries an allowed frame on
 *         from where divert took it, or straight into a pod.
 * uplink_steer: XDP on a NIC of the node, in uplink.h: an early drop.
 */
#include <bpf/bpf_core_read.h>

#include "neighbour.h"
#include "podlink.h"
#include "state.h"
#include "uplink.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define PACKET_HOST 0	 /* linux/if_packet.h */
#define NEXT	    (-1) /* TCX_NEXT, TC_ACT_UNSPEC: the next program, or on through the stack */
#define SHOT	    2	 /* TC_ACT_SHOT */

static __always_inline int drop(enum drop_reason r)
{
	count_drop(r);
	return SHOT;
}

/* Notes from which port a pod opens a flow, when no worker sees that. */
static __always_inline void asking(const struct packet *p, __u32 slot, enum hook hook)
{
	if (cfg.uplinks && hook == HOOK_FROM_POD)
		note_asked(slot, p->side == SIDE_A ? p->key.aport : p->key.bport);
}

/* Sends the frame to the worker that owns its flow, tagged with where it came from. */
static __always_inline int steer_up(struct __sk_buff *skb, struct packet *p, __u32 slot,
				    enum hook hook)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 id = owner(&p->key);
	struct worker *w;
	struct ethhdr was __attribute__((aligned(4)));
	struct {
		struct tag tag;
		__u8 src[ETH_ALEN];
	} eth;

	w = bpf_map_lookup_elem(&workers, &id);
	if (!w || !w->ifindex || !worker_alive(id, now)) {
		if (!cfg.fail_open)
			return drop(DROP_AGENT_DOWN);
		asking(p, slot, hook);
		count(COUNT_FAIL_OPEN);
		return NEXT;
	}
	if (cfg.offload && !within_budget(slot, hook, now))
		return drop(DROP_RATE_LIMITED);
	if (load(skb, 0, &was, sizeof(was)))
		return drop(DROP_TRUNCATED);
	__builtin_memcpy(eth.src, hook == HOOK_FROM_POD ? was.h_dest : was.h_source, ETH_ALEN);
	eth.tag.kind = TAG_BASE | hook;
	eth.tag.worker = id;
	eth.tag.slot[0] = slot >> 24;
	eth.tag.slot[1] = slot >> 16;
	eth.tag.slot[2] = slot >> 8;
	eth.tag.slot[3] = slot;
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
		return drop(DROP_TRUNCATED);
	count(COUNT_STEERED);
	return bpf_redirect(w->ifindex, 0);
}

/*
 * The agent looks at the ring buffer every few milliseconds; it is woken only
 * before the ring runs full, and not by each note from then on: an agent that has
 * fallen behind for want of a CPU has even less of it for wake-ups.
 */
static __always_inline void submit_note(struct note *n)
{
	__u64 waiting = bpf_ringbuf_query(&notes, BPF_RB_AVAIL_DATA);
	bool wake = waiting > NOTE_BYTES / 4 && (waiting & (NOTE_BYTES / 8 - 1)) < 4 * sizeof(*n);

	bpf_ringbuf_submit(n, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

/* Tells the agent, once a change, that a side of the flow has closed. */
static __always_inline void note_end(struct flow_value *v, const struct packet *p)
{
	__u8 bits = 0;
	struct note *n;

	if (p->tcp_flags & TCP_FIN)
		bits |= p->side == SIDE_A ? ENDED_FIN_A : ENDED_FIN_B;
	if (p->tcp_flags & TCP_RST)
		bits |= ENDED_RST;
	if ((v->ended & bits) == bits)
		return;
	v->ended |= bits;
	n = bpf_ringbuf_reserve(&notes, sizeof(*n), 0);
	if (!n) {
		count(COUNT_END_LOST);
		return;
	}
	__builtin_memset(n, 0, sizeof(*n));
	n->key = p->key;
	n->worker = owner(&p->key);
	n->kind = NOTE_END;
	n->ended = v->ended;
	n->tcp_flags = v->tcp_flags[(v->initiator ^ 1) & 1];
	submit_note(n);
}

static __always_inline void note_packet(struct __sk_buff *skb, struct flow_value *v,
					const struct packet *p)
{
	__u32 segs = skb->gso_segs;
	__u64 now = coarse_ns();

	if (v->last_seen_ns != now)
		v->last_seen_ns = now;
	__sync_fetch_and_add(&v->packets[p->side & 1], segs > 1 ? segs : 1);
	__sync_fetch_and_add(&v->bytes[p->side & 1], skb->len);
	if (p->tcp_flags & ~v->tcp_flags[p->side & 1])
		v->tcp_flags[p->side & 1] |= p->tcp_flags;
}

/* The kernel's own sk_buff (include/linux/skbuff.h), as far as it is of interest. */
struct sk_buff {
	__u8 ip_summed : 2;
	__u16 csum_start;
	__u16 csum_offset;
	unsigned char *head, *data;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *) __ksym __weak; /* since Linux 6.2 */

#define CHECKSUM_PARTIAL 3

/*
 * Whether a checksum that is still to be filled in, by whatever sends the packet on, is
 * where the protocol has it, or behind, as that of a packet in a tunnel. A packet socket
 * may say any other place, and the packet that leaves would not be the one that was
 * judged.
 */
static __always_inline bool checksum_in_place(struct __sk_buff *skb, const struct packet *p)
{
	__u32 l4 = ETH_HLEN + (p->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)), at;
	struct sk_buff *k;

	if (!cfg.kern_ctx)
		return true;
	k = bpf_cast_to_kern_ctx(skb);
	if (BPF_CORE_READ_BITFIELD(k, ip_summed) != CHECKSUM_PARTIAL)
		return true;
	switch (p->key.proto) {
	case IPPROTO_TCP:
		at = 16;
		break;
	case IPPROTO_UDP:
		at = 6;
		break;
	case IPPROTO_SCTP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		at = 8;
		break;
	default: /* nothing of it was judged */
		at = 0;
	}
	return (__u64)k->csum_start + k->csum_offset >= (__u64)k->data - (__u64)k->head + l4 + at;
}

/* A cache hit that goes on through the stack. */
static __always_inline int hit(void)
{
	count(COUNT_HIT);
	return NEXT;
}

/*
 * Carries a frame's addresses and TTL over to the next hop, as a router would. That
 * the head is the packet's own to write to is seen to before the program begins
 * (bpf_unclone_prologue, net/core/filter.c): without memory for it the packet is
 * dropped there, and no counter of ours has it.
 */
static __always_inline bool route(struct __sk_buff *skb, const struct packet *p,
				  const struct endpoint *ep)
{
	__u8 *eth = (void *)(long)skb->data, *ip = eth + ETH_HLEN;

	if (p->v6) {
		struct ipv6hdr *ip6 = (void *)ip;

		if ((void *)(ip6 + 1) > (void *)(long)skb->data_end || ip6->hop_limit <= 1)
			return false;
		ip6->hop_limit--;
	} else {
		struct iphdr *ip4 = (void *)ip;
		__u32 sum;

		if ((void *)(ip4 + 1) > (void *)(long)skb->data_end || ip4->ttl <= 1)
			return false;
		ip4->ttl--;
		/* RFC 1624: the word that holds the TTL shrank by 0x0100. */
		sum = (__u32)bpf_ntohs(ip4->check) + 0x0100;
		ip4->check = bpf_htons(sum + (sum >> 16));
	}
	*(__u32 *)eth = *(__u32 *)ep->mac;
	*(__u16 *)(eth + 4) = *(__u16 *)(ep->mac + 4);
	*(__u16 *)(eth + 6) = *(__u16 *)ep->host_mac;
	*(__u32 *)(eth + 8) = *(__u32 *)(ep->host_mac + 2);
	return true;
}

/*
 * Straight into the destination pod, as a router (TTL, both MACs) or a bridge
 * (frame unchanged) would have carried the frame there, or left to the stack.
 */
static __always_inline int shortcut(struct __sk_buff *skb, const struct packet *p,
				    const struct endpoint *ep)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if (!ep->ifindex || (void *)(eth + 1) > (void *)(long)skb->data_end)
		return hit();
	if (!mac_equal(eth->h_dest, ep->mac) && !route(skb, p, ep))
		return hit();
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	count(COUNT_SHORTCUT);
	return bpf_redirect_peer(ep->ifindex, 0);
}

/* No answer: MISS is for a worker to judge, CLEAR for admit to try first. */
#define MISS  (-2)
#define CLEAR (-3)

/* Acts on the caches of allowed and of denied flows. */
static __always_inline int cached(struct __sk_buff *skb, const struct packet *p,
				  const struct endpoint *ep, __u32 slot, enum hook hook)
{
	__u8 mine = hook == HOOK_FROM_POD ? p->side & 1 : (p->side & 1) ^ 1;
	__u8 from = p->side & 1;
	const struct endpoint *peer = 0;
	struct deny_value *d;
	struct flow_value *v;
	__u32 other;

	v = bpf_map_lookup_elem(&flows, &p->key);
	if (v) {
		if (v->slot[mine & 1] != slot || v->gen[mine & 1] != ep->gen)
			return MISS;
		other = v->slot[(mine ^ 1) & 1];
		if (other) {
			peer = bpf_map_lookup_elem(&endpoints, &other);
			if (!peer || peer->gen != v->gen[(mine ^ 1) & 1])
				return MISS;
		}
		if (p->opening && (v->initiator != p->side || v->ended))
			return MISS;
		if (p->key.proto == IPPROTO_ICMP || p->key.proto == IPPROTO_ICMPV6) {
			if (!p->opening && v->initiator == p->side)
				return MISS;
		}
		if (hook == HOOK_FROM_POD && !(peer && v->flags & FLOW_SHORTCUT) &&
		    !checksum_in_place(skb, p))
			return MISS; /* on its way up it is filled in */
		/*
		 * It came by the stack, though the pod that sent it goes around: to other
		 * addresses, that is, which were translated. So must the answers be.
		 */
		if (hook == HOOK_TO_POD && v->flags & FLOW_SHORTCUT)
			v->flags = (v->flags & ~FLOW_SHORTCUT) | FLOW_TO_POD;
		/* Once a packet: at from-pod, or at to-pod if that never sees it. */
		if (hook == HOOK_FROM_POD || !v->slot[from & 1] || v->flags & FLOW_TO_POD) {
			note_packet(skb, v, p);
			if (p->tcp_flags & (TCP_FIN | TCP_RST))
				note_end(v, p);
		}
		if (hook == HOOK_FROM_POD && peer && v->flags & FLOW_SHORTCUT)
			return shortcut(skb, p, peer);
		return hit();
	}
	d = bpf_map_lookup_elem(&denied, &p->key);
	if (!d)
		return CLEAR;
	/* Of ICMP it was the question that was denied, unless all of the flow was. */
	if (!p->opening && d->sides != 3 &&
	    (p->key.proto == IPPROTO_ICMP || p->key.proto == IPPROTO_ICMPV6))
		return MISS;
	if (d->sides & 1 << (p->side & 1) && d->slot[mine & 1] == slot &&
	    current(d->slot, d->gen) && denied_lately(d, bpf_ktime_get_coarse_ns())) {
		__u32 segs = skb->gso_segs;

		__sync_fetch_and_add(&d->packets, segs > 1 ? segs : 1);
		__sync_fetch_and_add(&d->bytes, skb->len);
		return drop(DROP_POLICY);
	}
	return MISS;
}

/*
 * Opens a flow between a pair that the workers have let open flows before,
 * under rules that still hold. MISS leaves the packet to a worker.
 */
static __always_inline int admit(struct __sk_buff *skb, const struct packet *p, __u32 slot,
				 enum hook hook)
{
	__u8 src = p->side & 1;
	__u32 segs = skb->gso_segs;
	struct flow_value fresh = {};
	struct admit_key k = {};
	struct admit_value *a;
	struct note *n;
	__u64 now;
	__u32 to;

	if (!p->opening && p->key.proto != IPPROTO_UDP && p->key.proto != IPPROTO_SCTP)
		return MISS;
	k.src = src == SIDE_A ? p->key.a : p->key.b;
	k.dst = src == SIDE_A ? p->key.b : p->key.a;
	k.proto = p->key.proto;
	k.hook = hook;
	if (k.proto != IPPROTO_ICMP && k.proto != IPPROTO_ICMPV6)
		k.dport = src == SIDE_A ? p->key.bport : p->key.aport;
	a = bpf_map_lookup_elem(&admits, &k);
	if (!a || a->slot[hook == HOOK_FROM_POD ? 0 : 1] != slot || !current(a->slot, a->gen))
		return MISS;
	if (hook == HOOK_FROM_POD && !(a->flags & FLOW_SHORTCUT) && !checksum_in_place(skb, p))
		return MISS;
	now = bpf_ktime_get_coarse_ns();
	if (!worker_alive(owner(&p->key), now))
		return MISS;
	if (!within_budget(slot, hook, now))
		return drop(DROP_RATE_LIMITED);
	n = bpf_ringbuf_reserve(&notes, sizeof(*n), 0);
	if (!n)
		return MISS;
	to = a->slot[1];
	if (src == SIDE_A) {
		fresh.slot[SIDE_A] = a->slot[0];
		fresh.slot[SIDE_B] = to;
		fresh.gen[SIDE_A] = a->gen[0];
		fresh.gen[SIDE_B] = a->gen[1];
	} else {
		fresh.slot[SIDE_A] = to;
		fresh.slot[SIDE_B] = a->slot[0];
		fresh.gen[SIDE_A] = a->gen[1];
		fresh.gen[SIDE_B] = a->gen[0];
	}
	fresh.initiator = src;
	fresh.flags = a->flags;
	fresh.last_seen_ns = now;
	if (src == SIDE_A) {
		fresh.packets[SIDE_A] = segs > 1 ? segs : 1;
		fresh.bytes[SIDE_A] = skb->len;
		fresh.tcp_flags[SIDE_A] = p->tcp_flags;
	} else {
		fresh.packets[SIDE_B] = segs > 1 ? segs : 1;
		fresh.bytes[SIDE_B] = skb->len;
		fresh.tcp_flags[SIDE_B] = p->tcp_flags;
	}
	if (bpf_map_update_elem(&flows, &p->key, &fresh, BPF_NOEXIST)) {
		bpf_ringbuf_discard(n, BPF_RB_NO_WAKEUP);
		return MISS;
	}
	__builtin_memset(n, 0, sizeof(*n));
	n->key = p->key;
	n->worker = owner(&p->key);
	n->kind = NOTE_START;
	n->initiator = src;
	n->flags = a->flags;
	n->slot[0] = fresh.slot[0];
	n->slot[1] = fresh.slot[1];
	n->gen[0] = fresh.gen[0];
	n->gen[1] = fresh.gen[1];
	n->egress = a->egress;
	n->ingress = a->ingress;
	n->generation = a->generation;
	n->tcp_flags = p->tcp_flags;
	n->hook = hook;
	submit_note(n);
	asking(p, slot, hook);
	count(COUNT_ADMITTED);
	if (hook == HOOK_FROM_POD && fresh.flags & FLOW_SHORTCUT) {
		struct endpoint *ep = bpf_map_lookup_elem(&endpoints, &to);

		if (ep)
			return shortcut(skb, p, ep);
	}
	return hit();
}

static __always_inline int divert(struct __sk_buff *skb, enum hook hook)
{
	struct packet p = {};
	struct endpoint *ep;
	enum drop_reason fate;
	struct ethhdr eth __attribute__((aligned(4)));
	__u32 slot;
	int verdict;

	if (skb->mark == cfg.resume_mark) {
		skb->mark = 0;
		return NEXT;
	}
	ep = endpoint_of(skb->ifindex, &slot);
	if (!ep)
		return drop(DROP_UNKNOWN_ENDPOINT);
	if (load(skb, 0, &eth, sizeof(eth)))
		return drop(DROP_TRUNCATED);
	if (hook == HOOK_FROM_POD) {
		if (!mac_equal(eth.h_source, ep->mac))
			return drop(DROP_SPOOFED_MAC);
	} else if (!(eth.h_dest[0] & 1) && !mac_equal(eth.h_dest, ep->mac)) {
		return drop(DROP_MISDIRECTED);
	}
	if (skb->vlan_present)
		return drop(DROP_VLAN);

	/* The fixed headers must be readable in place; what follows need not. */
	if ((void *)(long)skb->data + ETH_HLEN + sizeof(struct ipv6hdr) >
	    (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, skb->len < 128 ? skb->len : 128);

	switch (eth.h_proto) {
	case bpf_htons(ETH_P_IP):
		if (!parse_ipv4(skb, &p, slot))
			return drop(DROP_TRUNCATED);
		break;
	case bpf_htons(ETH_P_IPV6):
		if (neighbour_v6(skb, ep, slot, hook, &fate)) {
			if (fate)
				return drop(fate);
			count(COUNT_NEIGHBOUR);
			return NEXT;
		}
		if (!parse_ipv6(skb, &p, slot))
			return drop(DROP_TRUNCATED);
		break;
	case bpf_htons(ETH_P_ARP):
		if (hook == HOOK_FROM_POD) {
			fate = check_arp(skb, ep, slot);
			if (fate)
				return drop(fate);
		}
		count(COUNT_NEIGHBOUR);
		return NEXT;
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return drop(DROP_VLAN);
	default:
		return drop(DROP_UNKNOWN_ETHERTYPE);
	}
	canonical(&p);
	if (cfg.offload && p.plain) {
		verdict = cached(skb, &p, ep, slot, hook);
		if (verdict == CLEAR)
			verdict = admit(skb, &p, slot, hook);
		if (verdict != MISS) {
			count_traffic(skb, hook, verdict == SHOT);
			return verdict;
		}
	}
	return steer_up(skb, &p, slot, hook);
}

SEC("tc")
int divert_from_pod(struct __sk_buff *skb)
{
	return divert(skb, HOOK_FROM_POD);
}

SEC("tc")
int divert_to_pod(struct __sk_buff *skb)
{
	return divert(skb, HOOK_TO_POD);
}

/* An uplink's frame goes on as if the NIC had just received it. */
static __always_inline int resume_uplink(struct __sk_buff *skb, __u32 ifindex)
{
	struct uplink *up = bpf_map_lookup_elem(&uplinks, &ifindex);

	if (!up)
		return drop(DROP_BAD_TAG);
	if (bpf_skb_store_bytes(skb, 0, up->mac, ETH_ALEN, 0))
		return drop(DROP_TRUNCATED);
	count(COUNT_UPLINK_RESUMED);
	return bpf_redirect(ifindex, BPF_F_INGRESS);
}

SEC("tc")
int deliver(struct __sk_buff *skb)
{
	struct tag tag __attribute__((aligned(4)));
	struct endpoint *ep;
	__u32 slot;

	if (load(skb, 0, &tag, sizeof(tag)))
		return drop(DROP_TRUNCATED);
	slot = (__u32)tag.slot[0] << 24 | (__u32)tag.slot[1] << 16 | (__u32)tag.slot[2] << 8 |
	       tag.slot[3];
	if (tag.kind == (TAG_BASE | VERB_RESUME_UPLINK))
		return resume_uplink(skb, slot);
	ep = bpf_map_lookup_elem(&endpoints, &slot);
	if (!ep || !ep->ifindex)
		return drop(DROP_UNKNOWN_ENDPOINT);
	switch (tag.kind) {
	case TAG_BASE | VERB_SHORTCUT:
		if (bpf_skb_store_bytes(skb, 0, ep->mac, ETH_ALEN, 0))
			return drop(DROP_TRUNCATED);
		if (skb->pkt_type != PACKET_HOST)
			bpf_skb_change_type(skb, PACKET_HOST);
		count(COUNT_DELIVERED);
		return bpf_redirect_peer(ep->ifindex, 0);
	case TAG_BASE | VERB_RESUME_TO_POD:
		if (bpf_skb_store_bytes(skb, 0, ep->mac, ETH_ALEN, 0))
			return drop(DROP_TRUNCATED);
		skb->mark = cfg.resume_mark;
		count(COUNT_RESUMED);
		return bpf_redirect(ep->ifindex, 0);
	case TAG_BASE | VERB_RESUME_FROM_POD: {
		struct {
			__u8 dst[ETH_ALEN], src[ETH_ALEN];
		} eth;

		if (bpf_skb_load_bytes(skb, ETH_ALEN, eth.dst, ETH_ALEN))
			return drop(DROP_TRUNCATED);
		__builtin_memcpy(eth.src, ep->mac, ETH_ALEN);
		if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
			return drop(DROP_TRUNCATED);
		skb->mark = cfg.resume_mark;
		count(COUNT_RESUMED);
		return bpf_redirect(ep->ifindex, BPF_F_INGRESS);
	}
	}
	return drop(DROP_BAD_TAG);
}

SEC("xdp.frags")
int steer(struct xdp_md *ctx)
{
	struct tag *tag = (void *)(long)ctx->data;

	if ((void *)(tag + 1) > (void *)(long)ctx->data_end ||
	    (tag->kind & ~HOOK_TO_POD) != TAG_BASE) {
		count_drop(DROP_BAD_TAG);
		return XDP_DROP;
	}
	return bpf_redirect_map(&xsks, tag->worker, XDP_DROP);
}
