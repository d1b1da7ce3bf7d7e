/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the BPF programs and the agent share. Go reads and writes these
 * structures as they are: abi.go mirrors them and a test compares both through
 * the BTF of the compiled objects. Host byte order throughout.
 */
#ifndef SLUICE_ABI_H
#define SLUICE_ABI_H

#include <linux/types.h>

#define MAX_WORKERS 64

/* AF_XDP sockets on all queues of all uplinks together. */
#define MAX_UPLINK_SOCKETS 256

/* An IPv6 address, or a v4-mapped IPv4 one, as two big-endian words. */
struct addr {
	__u64 hi, lo;
};

/* A flow, the same for both directions: (a, aport) <= (b, bport). */
struct flow_key {
	struct addr a, b;
	__u16 aport, bport;
	__u8 proto;
	__u8 pad[3];
};

#define SIDE_A 0
#define SIDE_B 1

enum flow_flags {
	FLOW_SHORTCUT = 1 << 0, /* both ends are pods of this node, no NAT between */
	FLOW_TO_POD = 1 << 1,	/* it comes to to-pod by the stack, which may translate it */
	FLOW_AUDIT = 1 << 2,	/* allowed only because the deny is an audit */
	FLOW_LOG = 1 << 3,	/* a rule wants it reported */
};

enum flow_ended {
	ENDED_FIN_A = 1 << 0,
	ENDED_FIN_B = 1 << 1,
	ENDED_RST = 1 << 2,
};

/* An allowed flow. Indices are sides. slot 0: that end is no pod of this node. */
struct flow_value {
	__u32 slot[2];
	__u32 gen[2]; /* of the endpoint's rules that admitted the flow */
	__u8 initiator;
	__u8 flags;
	__u8 ended;
	__u8 tcp_flags[2]; /* all that were seen */
	__u8 pad[3];
	__u64 last_seen_ns; /* CLOCK_MONOTONIC_COARSE */
	__u64 packets[2];
	__u64 bytes[2];
};

/*
 * Packets that one side of a flow may not send; both sides of a flow that was
 * allowed before: its initiator then, else the side.
 */
struct deny_value {
	__u32 slot[2];
	__u32 gen[2];
	__u64 since_ns; /* judged at; judged anew after deny_ttl_ns */
	__u64 packets;
	__u64 bytes;
	__u8 sides; /* bit 0: SIDE_A, bit 1: SIDE_B */
	__u8 initiator;
	__u8 pad[6];
};

/* A pod of this node; the array index is its slot. */
struct endpoint {
	__u32 ifindex; /* host-side link; 0: slot is free */
	__u32 gen;     /* of its rules; the highest bit says: not in force */
	__u8 mac[6];
	__u8 host_mac[6];
};

/* The pod's own addresses, link-local ones included. */
struct own_addr {
	struct addr addr;
	__u32 slot;
	__u32 pad;
};

struct frag_key {
	struct addr src, dst;
	__u32 id;
	__u32 slot;
	__u8 proto;
	__u8 pad[7];
};

/*
 * Who may open flows to whom, as the workers judged it: any flow from src to
 * dport of dst, seen at hook, is allowed. Filled for pairs that open flows again
 * and again.
 */
struct admit_key {
	struct addr src, dst;
	__u16 dport; /* 0 for ICMP echo */
	__u8 proto;
	__u8 hook;
	__u8 pad[4];
};

struct admit_value {
	__u32 slot[2]; /* of src and dst */
	__u32 gen[2];
	__u32 egress, ingress; /* rule.CauseID */
	__u64 generation;      /* of the Set that judged */
	__u8 flags;	       /* enum flow_flags */
	__u8 pad[7];
};

enum note_kind {
	NOTE_END = 0,	/* a side of an allowed TCP flow has closed */
	NOTE_START = 1, /* a flow was admitted in the kernel */
};

/* What divert tells the agent, through the ring buffer. */
struct note {
	struct flow_key key;
	__u32 worker;
	__u8 kind;
	__u8 ended;
	__u8 initiator;
	__u8 flags;
	__u32 slot[2]; /* by side, in NOTE_START, as all below but tcp_flags */
	__u32 gen[2];
	__u32 egress, ingress;
	__u64 generation;
	__u8 tcp_flags; /* of the packet; in NOTE_END all of the side that answers */
	__u8 hook;
	__u8 pad[6];
};

/* One steering port. */
struct worker {
	__u32 ifindex; /* of sluice0.N; 0: none */
};

struct bucket {
	struct bpf_spin_lock lock;
	__u32 tokens;
	__u64 filled_ns;
};

/* A NIC of the node whose queues have sockets; the key is its index. */
struct uplink {
	__u32 base;   /* of its queues' places in uplink_xsks */
	__u32 queues; /* that have one */
	__u32 room;   /* bytes that a frame of the UMEM takes */
	__u8 mac[6];
	__u8 pad[2];
};

/*
 * Ports that a pod has ever opened flows from, a bit each, for as long as it has
 * its slot. What comes to one of them from outside may be a reply that the host
 * translates back: no one can judge it before.
 */
#define ASKED_WORDS 1024

struct asked {
	__u64 ports[ASKED_WORDS];
};

enum hook {
	HOOK_FROM_POD = 0,
	HOOK_TO_POD = 1,
};

/*
 * The destination MAC of a frame in the steering port. The frame's own
 * destination MAC (from-pod) has moved to the source field, whose value is the
 * endpoint's (the pod's own) and needs no place; at to-pod the destination is
 * the endpoint's and the source stays.
 */
struct tag {
	__u8 kind; /* TAG_BASE | hook on the way up, TAG_BASE | verb on the way down */
	__u8 worker;
	__u8 slot[4]; /* big endian */
};

#define TAG_BASE 0x40

enum verb {
	VERB_RESUME_FROM_POD = 0, /* go on where divert took it, at link's ingress */
	VERB_RESUME_TO_POD = 2,	  /* the same at link's egress */
	VERB_SHORTCUT = 4,	  /* into the pod of slot; source MAC is final */
	VERB_RESUME_UPLINK = 6,	  /* at the ingress of an uplink; slot is its index */
};

/* Dropped packets by reason: the order is stat.Reason's. */
enum drop_reason {
	DROP_NONE = 0,
	DROP_POLICY,
	DROP_TRUNCATED,
	DROP_MALFORMED,
	DROP_UNKNOWN_ETHERTYPE,
	DROP_VLAN,
	DROP_BAD_FRAGMENT,
	DROP_EXTENSION_HEADERS,
	DROP_SOURCE_ROUTED,
	DROP_SPOOFED_ADDRESS,
	DROP_SPOOFED_MAC,
	DROP_NEIGHBOUR_SPOOF,
	DROP_REDIRECT,
	DROP_ICMP_UNRELATED,
	DROP_INVALID_STATE,
	DROP_FLOW_TABLE_FULL,
	DROP_RATE_LIMITED,
	DROP_AGENT_DOWN,
	DROP_UNKNOWN_ENDPOINT,
	DROP_NOT_READY,
	DROP_TX_FULL,
	DROP_OVERSIZE,
	DROP_BAD_TAG,
	DROP_MISDIRECTED,
	NUM_DROP_REASONS,
};

/* What the programs did with packets that they did not drop. */
enum counter {
	COUNT_HIT = 0,	      /* allowed by the flow cache, on through the stack */
	COUNT_SHORTCUT,	      /* allowed by the flow cache, straight into the pod */
	COUNT_STEERED,	      /* sent to a worker */
	COUNT_NEIGHBOUR,      /* ARP, neighbour discovery, MLD */
	COUNT_RESUMED,	      /* came back allowed and went on */
	COUNT_DELIVERED,      /* came back allowed and went into a pod */
	COUNT_FAIL_OPEN,      /* no worker, let through by configuration */
	COUNT_END_LOST,	      /* no room in the ring buffer for the end of a flow */
	COUNT_ADMITTED,	      /* new flows that needed no worker */
	COUNT_UPLINK_DENIED,  /* dropped in an uplink's driver */
	COUNT_UPLINK_STEERED, /* sent to a worker from an uplink */
	COUNT_UPLINK_PASSED,  /* for a pod, left to the stack and the pod's link */
	COUNT_UPLINK_RESUMED, /* came back allowed to an uplink's ingress */
	NUM_COUNTERS,
};

/*
 * What the caches judged at a pod's link or on its behalf at an uplink, without
 * a worker: the index is the hook, and TRAFFIC_DENIED for what was dropped.
 */
struct traffic {
	__u64 packets, bytes;
};

#define TRAFFIC_DENIED 2
#define NUM_TRAFFIC    4

/* Set by the agent before loading. */
struct config {
	__u64 heartbeat_timeout_ns; /* a worker older than this is dead */
	__u64 deny_ttl_ns;
	__u64 hash_seed;
	__u32 resume_mark;
	__u32 workers;
	__u32 miss_rate; /* new flows a second and endpoint; 0: unlimited */
	__u32 miss_burst;
	__u8 offload; /* consult the flow cache */
	__u8 fail_open;
	__u8 shortcut;
	__u8 uplinks;	/* there are some: note what pods ask for */
	__u8 xdp_frags; /* programs take packets in several buffers */
	__u8 kern_ctx;	/* the kernel's own sk_buff can be looked at */
	__u8 pad[2];
};

#endif
