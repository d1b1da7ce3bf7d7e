package scenario

import (
	"fmt"
	"slices"

	"github.com/sluice-net/sluice/bench/listen"
	"github.com/sluice-net/sluice/bench/traffic"
)

// Systems lists all systems, in the order of the report.
func Systems() []System {
	offload := sluice(agentMode{name: "sluice", about: "Sluice, offload: established flows in the kernel's flow cache, short-cut pod to pod",
		offload: true, shortcut: true})
	return []System{
		kernel,
		withRPS(kernel),
		nftables,
		nftLinear,
		ipsetSystem,
		nfqueue,
		offload,
		withRPS(offload),
		sluice(agentMode{name: "sluice-nocut", about: "Sluice, offload, without the short-cut: established flows through the host's stack", offload: true}),
		sluice(agentMode{name: "inspect", about: "Sluice, every packet through a worker in userspace, short-cut pod to pod", shortcut: true}),
		asavie("asavie", "asavie/xdp l2fwd on the pods' links, no policy, the library's default rings", 0),
		asavie("asavie-tuned", "the same with 4096 frames a socket and a transmit budget to match", 4096),
		sluice(agentMode{name: "sluice-quiet", about: "Sluice, offload, no event remembered", offload: true, shortcut: true, events: "none"}),
		sluice(agentMode{name: "sluice-traced", about: "Sluice, offload, with a client that reads all events", offload: true, shortcut: true, listens: listen.Wire}),
		sluice(agentMode{name: "sluice-2w", about: "Sluice, offload, two workers", offload: true, shortcut: true, workers: 2}),
		sluice(agentMode{name: "inspect-quiet", about: "Sluice, every packet through a worker, no event remembered", shortcut: true, events: "none"}),
		sluice(agentMode{name: "inspect-traced", about: "Sluice, every packet through a worker, with a client that reads all events", shortcut: true, listens: listen.Wire}),
		sluice(agentMode{name: "inspect-decoded", about: "Sluice, every packet through a worker, with a client that decodes all events by grpc-go", shortcut: true, listens: listen.Decoded}),
		sluice(agentMode{name: "inspect-stalled", about: "Sluice, every packet through a worker, with a client that asks for all events and reads none", shortcut: true, stalled: true}),
		sluice(agentMode{name: "inspect-2w", about: "Sluice, every packet through one of two workers", shortcut: true, workers: 2}),
		dpdk,
		ovs,
		ceiling,
		xdpDropSystem,
		xdpRedirectSystem,
	}
}

var (
	brief    = []string{"kernel", "nftables", "sluice", "inspect"}
	routers  = []string{"kernel", "kernel-rps", "nftables", "nft-linear", "ipset", "nfqueue", "sluice", "sluice-rps", "sluice-nocut", "inspect"}
	inspects = []string{"asavie", "asavie-tuned", "dpdk", "ovs", "inspect", "kernel", Ceiling}
)

// with returns a list of its own.
func with(systems []string, more ...string) []string { return slices.Concat(systems, more) }

// The floods. 18 bytes of payload make the smallest Ethernet frame over IPv4.
const (
	smallPayload = 18
	someFlows    = 1024
	manyFlows    = 2 * 32768
	manySockets  = 2
	newSockets   = 24
	newPorts     = 61440
	// As many as no system gets through in half a second.
	newFrameFlows = 1 << 19
)

// Workloads lists all workloads, in the order of the report.
func Workloads() []Workload {
	all := append(append(basics(), tracing()...), methods()...)
	all = append(append(all, policies()...), nodes()...)
	return append(append(all, loads()...), attacks()...)
}

func basics() []Workload {
	return []Workload{
		{Name: "tcp-stream", Standard: brief, About: "one TCP flow from pod A to pod B, IPv4, threads unpinned",
			Systems: routers, Family: 4, CPUs: 1, Run: stream(placement{anyCPU, anyCPU})},
		{Name: "tcp-stream-pinned", About: "one TCP flow, IPv4, sender on CPU 0, receiver on CPU 1",
			Systems: routers, Family: 4, CPUs: 2, Run: stream(placement{0, 1})},
		{Name: "tcp-stream-v6", About: "one TCP flow from pod A to pod B, IPv6, threads unpinned",
			Systems: routers, Family: 6, CPUs: 1, Run: stream(placement{anyCPU, anyCPU})},
		{Name: "tcp-rr", About: "1-byte TCP request and response, one flow, IPv4, threads unpinned",
			Systems: routers, Family: 4, CPUs: 1, Run: request(placement{anyCPU, anyCPU})},
		{Name: "tcp-rr-same", Standard: brief, About: "1-byte TCP request and response, client and server on CPU 0",
			Systems: routers, Family: 4, CPUs: 1, Run: request(placement{0, 0})},
		{Name: "tcp-rr-cross", About: "1-byte TCP request and response, client on CPU 0, server on CPU 1",
			Systems: routers, Family: 4, CPUs: 2, Run: request(placement{0, 1})},
		{Name: "udp-small", Standard: with(brief, Ceiling), About: "18-byte UDP packets from real sockets (sendmmsg on CPU 0), one flow, IPv4; counted and dropped by a tcx program at pod B's eth0",
			Systems: with(routers, Ceiling), Family: 4, CPUs: 2, Flows: 1, Run: flood(1, 1)},
		{Name: "udp-small-64k", About: "the same with 65536 flows in random order",
			Systems: with(routers, Ceiling), Family: 4, CPUs: 2, Flows: manyFlows, Run: flood(manySockets, manyFlows/manySockets)},
		{Name: "udp-small-v6", About: "18-byte UDP packets from real sockets, one flow, IPv6",
			Systems: with(routers, Ceiling), Family: 6, CPUs: 2, Flows: 1, Run: flood(1, 1)},
		{Name: "tcp-crr", Standard: brief, About: "TCP connections one after the other: connect, 1 byte each way, close; both ends on CPU 0",
			Systems: routers, Family: 4, CPUs: 1, Flows: 1 << 16, Run: connect(1, 0)},
		{Name: "tcp-crr-16", About: "the same, 16 in parallel, threads unpinned",
			Systems: routers, Family: 4, CPUs: 1, Flows: 1 << 17, Run: connect(16, anyCPU)},
		{Name: "tcp-concurrent-1k", About: "1000 TCP connections open at a time (RFC 9411): set-up of all, then 1-byte exchanges on one after the other in random order; both ends on CPU 0",
			Systems: routers, Family: 4, CPUs: 1, Flows: 1000, Sweep: "tcp-concurrent", XName: "connections", X: 1000, Run: concurrent(1000)},
		{Name: "tcp-concurrent-8k", About: "the same with 8000 connections",
			Systems: routers, Family: 4, CPUs: 1, Flows: 8000, Sweep: "tcp-concurrent", XName: "connections", X: 8000, Run: concurrent(8000)},
		{Name: "new-flows", Standard: []string{"kernel", "nftables", "nfqueue", "sluice"}, About: "every packet the first of a new UDP flow (sendmmsg on CPU 0), counted where it arrives",
			Systems: []string{"kernel", "nftables", "ipset", "nfqueue", "sluice", "sluice-2w", "sluice-quiet", "sluice-traced"}, Family: 4, CPUs: 2, Flows: newSockets * newPorts / 2, Run: newFlows},
		{Name: "new-flows-frames", About: "the same, 60-byte frames out of a packet socket (sendmmsg on CPU 0, no qdisc): the sender spends little on each",
			Systems: []string{"kernel", "nftables", "sluice", "sluice-2w", "sluice-quiet", "inspect", Ceiling}, Family: 4, CPUs: 2, Flows: newFrameFlows, Run: newFrames(false)},
		{Name: "new-flows-clients", About: "the same frames, each from another source port to one of 16 ports, as clients of few services do",
			Systems: []string{"kernel", "nftables", "sluice", "sluice-2w", "sluice-quiet", "inspect", Ceiling}, Family: 4, CPUs: 2, Flows: newFrameFlows, Run: newFrames(true)},
		{Name: "every-packet", Standard: []string{"asavie", "asavie-tuned", "dpdk", "ovs", "inspect", Ceiling}, About: "60-byte UDP frames of one flow out of a packet socket (sendmmsg on CPU 0, no qdisc), every packet in userspace; sink as in udp-small",
			Systems: inspects, Family: 4, CPUs: 2, Flows: 1, Frames: true, Run: small(traffic.PacketSocket, 1).blasting()},
		{Name: "every-packet-64k", About: "the same with 65536 flows in random order",
			Systems: inspects, Family: 4, CPUs: 2, Flows: manyFlows, Frames: true, Run: small(traffic.PacketSocket, manyFlows).blasting()},
		{Name: "every-packet-workers", About: "60-byte UDP frames of 1024 flows, as in every-packet: one worker and two, followed and not",
			Systems: []string{"inspect", "inspect-2w", "inspect-traced", Ceiling}, Family: 4, CPUs: 2, Flows: someFlows, Run: small(traffic.PacketSocket, someFlows).blasting()},
		{Name: "raw", Standard: []string{"xdp-drop", "xdp-redirect"}, About: "limits of XDP on veth: live frames of BPF_PROG_TEST_RUN on CPU 0, no socket and no skb",
			Systems: []string{"xdp-drop", "xdp-redirect"}, Family: 4, CPUs: 2, Raw: true, Run: raw},
	}
}

// tracing is what it costs that somebody watches: established flows, of which there
// is nothing to tell, and nothing but new ones.
func tracing() []Workload {
	inspect, offload := []string{"inspect-quiet", "inspect", "inspect-traced"}, []string{"sluice-quiet", "sluice", "sluice-traced"}
	established := small(traffic.PacketSocket, someFlows).blasting()
	ws := []Workload{
		{Name: "tracing-inspect", About: "60-byte UDP frames of 1024 established flows, every packet through a worker: no events, all kept, all read by a client",
			Systems: inspect, Family: 4, CPUs: 2, Flows: someFlows, Run: established},
		{Name: "tracing-offload", About: "the same, with offload",
			Systems: offload, Family: 4, CPUs: 2, Flows: someFlows, Run: established},
		{Name: "tracing-new-inspect", About: "every packet the first of a new UDP flow, through a worker: no events, all kept, all read by a client",
			Systems: inspect, Family: 4, CPUs: 2, Flows: newSockets * newPorts / 2, Run: newFlows},
		{Name: "tracing-new-offload", About: "the same, with offload",
			Systems: offload, Family: 4, CPUs: 2, Flows: newSockets * newPorts / 2, Run: newFlows},
	}
	for _, rate := range toldRates {
		ws = append(ws, Workload{Name: "tracing-rate-" + short(rate), About: fmt.Sprintf("%d new UDP flows a second out of a packet socket: what a client is told of them, all kept and all read; flows and losses must add up", rate),
			Systems: []string{"inspect", "inspect-traced", "inspect-decoded", "inspect-stalled", "sluice-traced"}, Family: 4, CPUs: 2, Flows: toldFlows,
			Sweep: "tracing-rate", XName: "flows a second", X: float64(rate), Run: toldOfNew(rate)})
	}
	return ws
}
