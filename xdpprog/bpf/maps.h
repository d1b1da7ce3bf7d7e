/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps. Sizes marked "set by the agent" are those of its configuration. */
#ifndef SLUICE_MAPS_H
#define SLUICE_MAPS_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

const volatile struct config cfg = {};

/* Never read: keeps these types in the BTF, where the agent's tests find them. */
const volatile struct {
	struct note note;
	enum drop_reason drop_reason;
	enum counter counter;
	enum hook hook;
	enum verb verb;
	enum flow_flags flow_flags;
	enum flow_ended flow_ended;
} abi_types = {};

/* Allowed flows: written by the workers, counted by divert. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
	__uint(max_entries, 131072); /* set by the agent */
} flows SEC(".maps");

/* Denied flows. An attacker may turn this over as he likes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key);
	__type(value, struct deny_value);
	__uint(max_entries, 16384); /* set by the agent */
} denied SEC(".maps");

/* Ports of datagrams whose first fragment was seen. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct frag_key);
	__type(value, __u32);	   /* source port << 16 | destination port */
	__uint(max_entries, 8192); /* set by the agent */
} frags SEC(".maps");

/* Host-side link to slot. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1024); /* set by the agent */
} links SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct endpoint);
	__uint(max_entries, 1024); /* set by the agent */
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct own_addr);
	__type(value, __u8);
	__uint(max_entries, 8192); /* set by the agent */
} own_addrs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct bucket);
	__uint(max_entries, 1024); /* set by the agent */
} buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct worker);
	__uint(max_entries, MAX_WORKERS);
} workers SEC(".maps");

/* CLOCK_MONOTONIC_COARSE of each worker's last turn, written through mmap. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, MAX_WORKERS);
} heartbeats SEC(".maps");

/* The kernel empties a worker's slot when its socket goes. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, MAX_WORKERS);
} xsks SEC(".maps");

/* Addresses of this node's pods: what of an uplink's traffic is for them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct addr);
	__type(value, __u32);
	__uint(max_entries, 8192); /* set by the agent */
} pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct uplink);
	__uint(max_entries, MAX_UPLINK_SOCKETS);
} uplinks SEC(".maps");

/* Likewise of an uplink's queue. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, MAX_UPLINK_SOCKETS);
} uplink_xsks SEC(".maps");

/* Shared with the agent through mmap. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct asked);
	__uint(max_entries, 1); /* set by the agent, if there are uplinks */
} asked SEC(".maps");

/* Pairs whose flows are admitted here. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct admit_key);
	__type(value, struct admit_value);
	__uint(max_entries, 16384); /* set by the agent */
} admits SEC(".maps");

#define NOTE_BYTES (1 << 21)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, NOTE_BYTES);
} notes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, NUM_DROP_REASONS);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, NUM_COUNTERS);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct traffic);
	__uint(max_entries, NUM_TRAFFIC);
} traffic SEC(".maps");

static __always_inline void add_traffic(__u32 key, __u32 packets, __u32 bytes)
{
	struct traffic *t = bpf_map_lookup_elem(&traffic, &key);

	if (!t)
		return;
	t->packets += packets;
	t->bytes += bytes;
}

static __always_inline void count_traffic(struct __sk_buff *skb, enum hook hook, bool denied)
{
	__u32 segs = skb->gso_segs;

	add_traffic(denied ? hook | TRAFFIC_DENIED : hook, segs > 1 ? segs : 1, skb->len);
}

static __always_inline void count(enum counter c)
{
	__u32 key = c;
	__u64 *n = bpf_map_lookup_elem(&counters, &key);

	if (n)
		(*n)++;
}

static __always_inline void count_drop(enum drop_reason r)
{
	__u32 key = r;
	__u64 *n = bpf_map_lookup_elem(&drops, &key);

	if (n)
		(*n)++;
}

#endif
