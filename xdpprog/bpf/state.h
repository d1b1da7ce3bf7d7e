/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What both the pods' links and the uplinks ask of the agent's state. */
#ifndef SLUICE_STATE_H
#define SLUICE_STATE_H

#include "parse.h"

/*
 * Slots by the lower bits of a link's number, as the last packet found them. A hint
 * is only taken where the endpoint says that the link is its own, and spares the
 * look-up in links, a fifth of what a known flow's packet takes.
 */
#define HINTS 1024
__u32 hints[HINTS];

/* The endpoint behind a link, and its slot. */
static __always_inline struct endpoint *endpoint_of(__u32 ifindex, __u32 *slot)
{
	__u32 at = ifindex & (HINTS - 1), *known;
	struct endpoint *ep;

	barrier_var(at); /* see asked_word */
	at &= HINTS - 1;
	*slot = hints[at];
	ep = bpf_map_lookup_elem(&endpoints, slot);
	if (ep && ep->ifindex == ifindex)
		return ep;
	known = bpf_map_lookup_elem(&links, &ifindex);
	if (!known)
		return 0;
	*slot = *known;
	if (hints[at] != *slot)
		hints[at] = *slot;
	return bpf_map_lookup_elem(&endpoints, slot);
}

/*
 * CLOCK_MONOTONIC_COARSE, up to a tick late: it is read once a tick, whose number is
 * read in place (kernel/bpf/verifier.c on BPF_FUNC_jiffies64), and not once a packet.
 */
__u64 clock_tick, clock_ns;

static __always_inline __u64 coarse_ns(void)
{
	__u64 tick = bpf_jiffies64();

	if (clock_tick != tick) {
		clock_ns = bpf_ktime_get_coarse_ns();
		clock_tick = tick;
	}
	return clock_ns;
}

/*
 * Spends one token of the endpoint's budget of new flows: there is one a hook, so that
 * who floods a pod doesn't spend what the pod itself may open.
 */
static __always_inline bool within_budget(__u32 slot, enum hook hook, __u64 now)
{
	__u32 at = slot * 2 + hook;
	struct bucket *b;
	__u64 filled = 0;
	bool ok;

	if (!cfg.miss_rate)
		return true;
	b = bpf_map_lookup_elem(&buckets, &at);
	if (!b)
		return false;
	bpf_spin_lock(&b->lock);
	/* Another CPU may have read a later time and come first. */
	if (now > b->filled_ns)
		filled = (now - b->filled_ns) / 1000 * cfg.miss_rate / 1000000;
	if (filled) {
		b->filled_ns = now;
		filled += b->tokens;
		b->tokens = filled > cfg.miss_burst ? cfg.miss_burst : filled;
	}
	ok = b->tokens > 0;
	if (ok)
		b->tokens--;
	bpf_spin_unlock(&b->lock);
	return ok;
}

static __always_inline bool worker_alive(__u32 id, __u64 now)
{
	__u64 *beat = bpf_map_lookup_elem(&heartbeats, &id);

	if (!beat || !bpf_map_lookup_elem(&xsks, &id))
		return false;
	if (!*beat) /* none yet: now may be the first seconds after boot */
		return false;
	/* A beat from another CPU may be newer than now. */
	return (__s64)(now - *beat) < (__s64)cfg.heartbeat_timeout_ns;
}

/* The worker's clock is finer: what it has just denied is ahead of now. */
static __always_inline bool denied_lately(const struct deny_value *d, __u64 now)
{
	return (__s64)(now - d->since_ns) < (__s64)cfg.deny_ttl_ns;
}

static __always_inline bool current(const __u32 slot[2], const __u32 gen[2])
{
	struct endpoint *ep;
	__u32 s;

#pragma unroll
	for (int i = 0; i < 2; i++) {
		s = slot[i];
		if (!s)
			continue;
		ep = bpf_map_lookup_elem(&endpoints, &s);
		if (!ep || ep->gen != gen[i])
			return false;
	}
	return true;
}

/*
 * The compiler knows that a port has 16 bits and makes the mask wider, to save
 * itself an instruction. Older verifiers (5.15) have lost the 16 bits by then and see
 * no bound at all, so it must not know.
 */
static __always_inline __u32 asked_word(__u16 port)
{
	__u32 word = port >> 6;

	barrier_var(word);
	return word & (ASKED_WORDS - 1);
}

/*
 * Notes that the pod has opened a flow from a port: before the packet leaves that
 * opens it, here or by the worker that judges it.
 */
static __always_inline void note_asked(__u32 slot, __u16 port)
{
	struct asked *a = bpf_map_lookup_elem(&asked, &slot);
	__u64 bit = 1ULL << (port & 63), *word;

	if (!a)
		return;
	word = &a->ports[asked_word(port)];
	if (!(*word & bit))
		__sync_fetch_and_or(word, bit);
}

/* Without a note of the pod, anything may be a reply. */
static __always_inline bool has_asked(__u32 slot, __u16 port)
{
	struct asked *a = bpf_map_lookup_elem(&asked, &slot);

	if (!a)
		return true;
	return a->ports[asked_word(port)] >> (port & 63) & 1;
}

#endif
