package dataplane

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// The way of a simulation's packets through a node.

const simUplink = 299 // a link

var simUplinkMAC = endpoint.MAC{2, 0, 0, 0, 2, 0}

// simRing is where frames wait for a worker: a steering port, a queue of the uplink, or
// a pod's own link.
type simRing struct {
	*testWorker
	from   *uplinkQueue
	bare   bool
	frames [][]byte
	under  []*simPacket
}

func (r *simRing) full() bool { return len(r.frames) >= burstSize }

// send has an end send a packet.
func (s *sim) send(p *simPacket) {
	s.Helper()
	s.note("send %+v flags %#x kind %d", p.simTuple, p.flags, p.kind)
	p.rules = []*simRules{s.rules}
	p.hook, p.link = event.FromPod, p.src
	if p.src >= simPods {
		p.hook, p.link = event.ToPod, p.dst
		p.uplink = len(s.cfg.Uplinks) > 0 && s.IntN(4) > 0 && p.kind != misdirected
		if p.kind == spoofed && !p.uplink {
			return // the host would know
		}
	}
	if p.kind == misdirected {
		p.link = (p.dst + 1) % simPods
	}
	if p.kind < quoting {
		s.sent[p.simTuple] = true
	}
	switch {
	case p.service == nil:
	case p.calls():
		p.service.said[p.src].call = true
	default:
		p.service.said[p.dst].answer = true
	}
	if p.kind < quoting && p.service == nil {
		s.recent = append(s.recent[max(0, len(s.recent)-7):], p)
	}
	if p.kind == first {
		rest := *p
		rest.kind = later
		defer func() { s.queue = append(s.queue, &rest) }()
	}
	s.arrive(p)
}

// arrive has the program see a packet that is where it is.
func (s *sim) arrive(p *simPacket) {
	s.Helper()
	if p.uplink {
		s.comesIn(p)
		return
	}
	if p.hook == event.FromPod && !s.cfg.Offload {
		if verdict, frame := s.runProgram(s.steerPod, p, s.metadata(p, int(s.pods[p.link].Link.Ifindex), 0)); verdict == xdpRedirect {
			s.note("  %+v up at the pod's link", p.simTuple)
			s.waits(&s.heard[p.link], p, frame)
			return
		}
	}
	const next = ^uint32(0) // TCX_NEXT
	prog := s.divert
	if p.hook == event.ToPod {
		prog = s.toPod
	}
	// struct __sk_buff, as far as it is of interest (include/uapi/linux/bpf.h).
	skb := struct {
		_       [10]uint32
		Ifindex uint32
	}{Ifindex: uint32(s.pods[p.link].Link.Ifindex)}
	verdict, frame := s.runProgram(prog, p, skb)
	switch {
	case verdict == next:
		s.same(p, frame)
		s.next(p)
	case verdict == tcRedirect && frame[0]&^1 == 0x40:
		s.note("  %+v up at hook %d", p.simTuple, p.hook)
		_, worker, _, _ := xdpprog.ParseTag(frame)
		s.waits(&s.ports[worker], p, frame)
	case verdict == tcRedirect:
		s.shortcut(p, frame)
	default:
		s.done(p, false)
	}
}

// What programs return (include/uapi/linux/pkt_cls.h, bpf.h).
const (
	tcRedirect  = 7
	xdpDrop     = 1
	xdpPass     = 2
	xdpRedirect = 4
)

// metadata is struct xdp_md.
func (s *sim) metadata(p *simPacket, link, queue int) any {
	return struct{ Data, DataEnd, DataMeta, Ifindex, Queue, Egress uint32 }{
		DataEnd: uint32(len(s.frame(p))), Ifindex: uint32(link), Queue: uint32(queue),
	}
}

// comesIn has a packet come by the uplink.
func (s *sim) comesIn(p *simPacket) {
	s.Helper()
	queue := s.IntN(simQueues)
	switch verdict, frame := s.runProgram(s.steer, p, s.metadata(p, simUplink, queue)); verdict {
	case xdpDrop:
		s.done(p, false)
	case xdpRedirect:
		s.note("  %+v up at queue %d", p.simTuple, queue)
		s.waits(&s.queues[queue], p, frame)
	default:
		s.next(p)
	}
}

func (s *sim) runProgram(prog *ebpf.Program, p *simPacket, ctx any) (verdict uint32, frame []byte) {
	s.Helper()
	return s.runOn(prog, s.frame(p), ctx)
}

func (s *sim) runOn(prog *ebpf.Program, in []byte, ctx any) (verdict uint32, out []byte) {
	s.Helper()
	opts := &ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+256), Repeat: 1, Context: ctx}
	for i := range s.ports {
		s.plane.objs.Beat(i, nowMono(s.T))
	}
	verdict, err := prog.Run(opts)
	s.must(err)
	return verdict, opts.DataOut
}

func (s *sim) waits(r *simRing, p *simPacket, frame []byte) {
	r.frames, r.under = append(r.frames, frame), append(r.under, p)
	if r.full() {
		s.burst(r)
	}
}

func nowMono(t *testing.T) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano()
}

// same checks that a frame is the packet's own where it is.
func (s *sim) same(p *simPacket, frame []byte) {
	s.Helper()
	if want := s.frame(p); !bytes.Equal(frame, want) {
		s.showLog(p.simTuple)
		s.Fatalf("%+v, kind %d, at hook %d, by the uplink %t: the frame is\n%x, want\n%x", p.simTuple, p.kind, p.hook, p.uplink, frame, want)
	}
}

// shortcut brings a frame into a pod, past the host's stack.
func (s *sim) shortcut(p *simPacket, frame []byte) {
	s.Helper()
	p.hook, p.link, p.routed = event.ToPod, p.dst, true
	s.same(p, frame)
	s.done(p, true)
}

// next takes a packet through the host's stack.
func (s *sim) next(p *simPacket) {
	s.Helper()
	if p.calls() && p.dst == p.src {
		return // it would come from the node
	}
	if p.hook == event.FromPod {
		s.leavesWord(p)
	}
	switch {
	case p.uplink && p.kind == spoofed: // the reverse path filter
		s.done(p, false)
	case p.uplink:
		p.uplink = false
		s.queue = append(s.queue, p)
	case p.hook == event.FromPod && p.dst < simPods:
		p.hook, p.link = event.ToPod, p.dst
		s.queue = append(s.queue, p)
	default:
		s.done(p, true)
	}
}

// leavesWord checks that the uplink leaves alone what comes to a port from which a pod has
// opened a flow: whoever it is from, it may be an answer that the host translates.
func (s *sim) leavesWord(p *simPacket) {
	s.Helper()
	if len(s.cfg.Uplinks) == 0 || p.kind > first || p.icmp() || s.sent[p.reverse()] {
		return
	}
	const unused = 7
	answer := &simPacket{simTuple: p.reverse(), flags: packet.TCPAck, hook: event.ToPod, uplink: true, link: p.src}
	answer.src, answer.sport = simPods, unused
	if verdict, _ := s.runProgram(s.steer, answer, s.metadata(answer, simUplink, 0)); verdict != xdpPass {
		s.showLog(p.simTuple)
		s.Fatalf("%+v: what may be an answer: verdict %d", p.simTuple, verdict)
	}
}

// burst has a worker take what waits for it.
func (s *sim) burst(r *simRing) {
	s.Helper()
	frames, list := r.frames, r.under
	r.frames, r.under = nil, nil
	if len(frames) == 0 {
		return
	}
	r.tick()
	r.put(frames...)
	for i := range list {
		r.b.pkts[i].from, r.b.pkts[i].bare = r.from, r.bare
	}
	r.process(s.plane.snap.Load())
	if r.bare {
		r.finish()
	}
	for i, p := range list {
		switch b := &r.b.pkts[i]; b.verb {
		case verbDrop:
			s.note("  dropped by worker %d: %v, %+v", r.id, b.reason, p.simTuple)
			if b.reason != stat.FlowTableFull {
				s.done(p, false)
			}
		case verbShortcut:
			s.shortcut(p, s.comesDown(r, i))
		case verbResume:
			s.same(p, s.comesDown(r, i))
			s.next(p)
		default:
			s.Fatalf("verb %d", b.verb)
		}
	}
}

// comesDown has deliver see what a worker sends.
func (s *sim) comesDown(r *simRing, i int) []byte {
	s.Helper()
	b := &r.b.pkts[i]
	r.address(s.plane.snap.Load(), b, &r.b.hdrs[i])
	verdict, frame := s.runOn(s.deliver, b.frame, nil)
	if verdict != tcRedirect {
		s.Fatalf("deliver: verdict %d", verdict)
	}
	return frame
}

// done compares what became of a packet with what the model says.
func (s *sim) done(p *simPacket, passed bool) {
	s.Helper()
	s.note("  %+v passed %t", p.simTuple, passed)
	may, must := false, true
	for _, r := range p.rules {
		one, all := s.may(p, r)
		may, must = may || one, must && all
	}
	outcome := 0
	if passed && p.calls() && p.service.chosen[p.src] == p.dst {
		p.service.called[p.src] = true
	}
	if passed {
		outcome = 1
	}
	s.outcomes[p.kind][outcome]++
	if passed && !may || !passed && must {
		s.showLog(p.simTuple)
		s.Fatalf("%+v, flags %#x, kind %d: passed %t; it may %t, must %t", p.simTuple, p.flags, p.kind, passed, may, must)
	}
}

// showLog shows what was of interest to a conversation lately, and all of late.
func (s *sim) showLog(c simTuple) {
	way, back := fmt.Sprintf("%+v", c), fmt.Sprintf("%+v", c.reverse())
	for i, line := range s.log {
		ofIt := strings.Contains(line, way) || strings.Contains(line, back) || !strings.Contains(line, "{")
		if left := len(s.log) - i; left < 30 || left < 5000 && ofIt {
			s.Log(line)
		}
	}
}
