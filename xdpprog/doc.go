// Package xdpprog holds the BPF programs (bpf/*.c), their generated bindings,
// and everything that touches them: loading, pinning, attaching, typed access
// to the maps. It is the only user of cilium/ebpf.
//
// uplink_steer (bpf/uplink.h), on the node's NICs, is an early drop and a faster
// path for what opens flows to pods. Enforcement never depends on it: all that
// passes it is judged at the pod's link, and it passes whatever is in doubt:
// what may be a reply that the host translates back, whatever it does not parse
// to the end, everything while the worker of the queue shows no heartbeat.
//
// Programs and maps are pinned, so they outlive the agent: established flows
// go on while it is away, and a new agent adopts what it finds.
package xdpprog
