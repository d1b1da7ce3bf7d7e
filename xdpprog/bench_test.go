package xdpprog_test

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/xdpprog"
)

// BenchmarkDivert is what divert takes for a packet of a flow in the cache, by the
// kernel's own measure (BPF_PROG_TEST_RUN): straight into the other pod, as a bridge
// would bring it there, and on through the stack. The look-up in the cache is a third
// of it.
func BenchmarkDivert(b *testing.B) {
	for _, bench := range []struct {
		name  string
		proto layers.IPProtocol
		flags uint8
		v6    bool
	}{
		{"udp4-shortcut", layers.IPProtocolUDP, xdpprog.FlowShortcut, false},
		{"udp6-shortcut", layers.IPProtocolUDP, xdpprog.FlowShortcut, true},
		{"tcp4-shortcut", layers.IPProtocolTCP, xdpprog.FlowShortcut, false},
		{"udp4-stack", layers.IPProtocolUDP, 0, false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			r := newRig(b, nil)
			f := flowOf{pod4, peer4, 1000, 80, bench.proto}
			if bench.v6 {
				f.src, f.dst = pod6, peer6
			}
			r.allow(f, xdpprog.FlowValue{Flags: bench.flags})
			fd, err := unix.FcntlInt(uintptr(r.FilterFD(xdpprog.PodIngress)), unix.F_DUPFD_CLOEXEC, 0)
			r.must(err)
			prog, err := ebpf.NewProgramFromFD(fd)
			r.must(err)
			defer prog.Close()
			b.ResetTimer()
			_, took, err := prog.Benchmark(f.frame(b, podMAC, peerMAC, "A"), b.N, nil)
			r.must(err)
			b.ReportMetric(float64(took.Nanoseconds()), "ns/packet")
		})
	}
}
