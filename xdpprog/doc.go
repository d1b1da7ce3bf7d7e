// Package xdpprog holds the BPF programs (bpf/*.c), their generated bindings,
// and everything that touches them: loading, pinning, attaching, typed access
// to the maps. It is the only user of cilium/ebpf.
//
// Programs and maps are pinned, so they outlive the agent: established flows
// go on while it is away, and a new agent adopts what it finds.
package xdpprog
