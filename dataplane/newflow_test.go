package dataplane

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/xdpprog"
)

// bpffs mounts a bpffs that goes with its descriptor.
func bpffs(tb testing.TB) string {
	tb.Helper()
	fs, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		tb.Fatal(err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(mnt) })
	return fmt.Sprintf("/proc/self/fd/%d", mnt)
}

// BenchmarkNewFlows is what a flow costs that a packet opens: bursts of 64
// packets of as many new flows, all allowed and entered in the kernel's cache.
// Sending and receiving is not in it. The time is that of the thread, as the
// kernel accounts it, so that other processes matter less.
func BenchmarkNewFlows(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	for _, offload := range []bool{false, true} {
		b.Run(fmt.Sprintf("offload=%v", offload), func(b *testing.B) {
			const flows = 1 << 20
			w := newTestWorker(b)
			w.cfg.Offload = offload
			objs, _, err := xdpprog.Load(xdpprog.Config{PinPath: bpffs(b), Workers: 1, Offload: true, Flows: flows, Denied: 64, Admits: 16384, Fragments: 64, Endpoints: 8})
			if err != nil {
				b.Fatal(err)
			}
			defer objs.Close()
			w.objs = objs
			c := w.cfg.Flow
			c.Capacity = flows
			if w.flows, err = flow.New(c, packet.NewHasher([3]uint64{1, 2, 3})); err != nil {
				b.Fatal(err)
			}
			w.publish(testSet(1, rule.PortRange{Proto: 17, From: 0, To: 65535}))
			var frames [][]byte
			for range burstSize {
				frames = append(frames, segment{hook: event.FromPod, slot: slotA, src: addrA, dst: addrB, sport: 1, dport: 1, udp: true}.frame(b))
			}
			w.put(frames...)
			saved := w.b
			records := make([]event.Record, 1024)
			next := uint32(0)
			var before, after unix.Rusage
			unix.Getrusage(unix.RUSAGE_THREAD, &before)
			for b.Loop() {
				w.b.pkts, w.b.n = saved.pkts, saved.n
				for i := range frames {
					f := w.b.pkts[i].frame
					copy(f[:14], frames[i][:14])
					next++
					binary.BigEndian.PutUint16(f[36:], uint16(next*0x9e37)) // an order without order
					binary.BigEndian.PutUint16(f[34:], uint16(next>>16))
				}
				if next%flows == 0 {
					b.StopTimer()
					var keys []packet.Key
					for r := range flow.Ref(flows) {
						if w.flows.At(r).State != flow.Free {
							keys = append(keys, w.flows.At(r).Key)
							w.flows.Remove(r)
						}
					}
					for ; len(keys) > 0 && offload; keys = keys[min(len(keys), 4096):] {
						xdpprog.DeleteFlows(objs, keys[:min(len(keys), 4096)])
					}
					b.StartTimer()
				}
				w.tick()
				w.process(w.snap)
				for i := range w.b.n {
					w.address(w.snap, &w.b.pkts[i], &w.b.hdrs[i])
				}
				w.wanted = endpoint.None
				w.events.Flush()
				w.events.Read(records)
				w.counts.Publish()
				w.hits.Flush()
			}
			unix.Getrusage(unix.RUSAGE_THREAD, &after)
			n := float64(b.N) * burstSize
			b.ReportMetric(float64(after.Utime.Nano()-before.Utime.Nano())/n, "user-ns/flow")
			b.ReportMetric(float64(after.Stime.Nano()-before.Stime.Nano())/n, "sys-ns/flow")
			b.ReportMetric(0, "ns/op")
		})
	}
}
