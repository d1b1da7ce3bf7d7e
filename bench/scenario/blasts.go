package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/traffic"
)

// blast describes the frames of a workload, and how they leave.
type blast struct {
	via   traffic.Via
	sizes []traffic.SizeShare
	flows int
	zipf  float64
	// clients have many source ports and few destination ports.
	clients bool
	attack  traffic.Attack // in place of the above
	pcap    bool           // in place of the above: Plan.Pcap
	// answered flows have had a packet from the far end before anything is
	// measured, so that connection tracking takes them to be established.
	answered bool
}

// smallest is the smallest Ethernet frame: 64 bytes with its checksum.
var smallest = []traffic.SizeShare{{Bytes: 64, Share: 1}}

// smallest6 has room for a number over IPv6; so has none of RFC 5180's sizes below
// 128.
var smallest6 = []traffic.SizeShare{{Bytes: 128, Share: 1}}

// small frames of so many flows.
func small(via traffic.Via, flows int) blast {
	return blast{via: via, sizes: smallest, flows: flows, answered: true}
}

// wire is the two links that frames leave and arrive by.
type wire struct {
	out, in         traffic.End
	outIndex        int
	inIndex         int
	fromMAC, toMAC  net.HardwareAddr // of what leaves
	backMAC, viaMAC net.HardwareAddr // of what goes back: from the far end, to its next hop
	// inside runs something in the namespace of the link by which they arrive.
	inside func(func() error) error
}

// wire finds them.
func (s *Stage) wire() (w wire, err error) {
	if s.cable != nil {
		return s.cable.wire()
	}
	var errs [4]error
	w.inside = s.B.Namespace().Do
	w.out, w.in = s.end(s.A, 0), s.end(s.B, 0)
	w.outIndex, w.fromMAC, errs[0] = linkIndex(s.A.Namespace(), "eth0")
	w.inIndex, w.backMAC, errs[1] = linkIndex(s.B.Namespace(), "eth0")
	_, w.toMAC, errs[2] = linkIndex(s.Net.Host(), s.A.Link())
	_, w.viaMAC, errs[3] = linkIndex(s.Net.Host(), s.B.Link())
	if s.blind { // the generator alone: what leaves pod A arrives at once
		w.inside = s.Net.Host().Do
		w.inIndex, _, errs[1] = linkIndex(s.Net.Host(), s.A.Link())
	}
	return w, errors.Join(errs[:]...)
}

// load makes the frames.
func (b blast) load(s *Stage, w wire) (*traffic.Load, error) {
	var from, to netip.Addr
	if s.cable != nil {
		from, to = s.cable.From, s.cable.To
	} else {
		from, to = s.addr(s.A), s.addr(s.B)
	}
	switch {
	case b.attack != "":
		return b.attack.Load(w.fromMAC, w.toMAC, from, to)
	case b.pcap:
		f, err := os.Open(s.pcap)
		if err != nil {
			return nil, fmt.Errorf("open capture: %w", err)
		}
		defer f.Close()
		l, _, err := traffic.Replay(f, w.fromMAC, w.toMAC, from, to)
		return l, err
	}
	return traffic.Mix{FromMAC: w.fromMAC, ToMAC: w.toMAC, From: from, To: to, Sizes: b.sizes, Flows: b.flows, Zipf: b.zipf, Clients: b.clients}.Load()
}

// prepare makes the frames, and has the far end answer each flow, if they are
// to be established ones.
func (b blast) prepare(ctx context.Context, s *Stage) (w wire, l *traffic.Load, err error) {
	if w, err = s.wire(); err != nil {
		return w, nil, err
	}
	if l, err = b.load(s, w); err != nil || !b.answered || s.blind {
		return w, l, err
	}
	// Each flow once there, once back, and once there again.
	back := l.Back(w.backMAC, w.viaMAC)
	first := back.Back(w.fromMAC, w.toMAC)
	for _, pass := range []traffic.Blast{
		{Client: w.out, Ifindex: w.outIndex, Load: first}, {Client: w.in, Ifindex: w.inIndex, Load: back},
		{Client: w.out, Ifindex: w.outIndex, Load: first},
	} {
		// Slowly enough that every system keeps up.
		pass.Rate, pass.Count = establishRate, uint64(len(pass.Load.Order))
		if err := once(ctx, pass); err != nil {
			return w, nil, fmt.Errorf("establish %d flows: %w", len(first.Order), err)
		}
	}
	return w, l, nil
}

// establishRate is how many flows a second are established.
const establishRate = 100e3

// once sends a blast to its end.
func once(ctx context.Context, b traffic.Blast) error {
	f, err := b.Start(ctx)
	if err != nil {
		return err
	}
	select {
	case <-f.Done():
		err = sleep(ctx, settle)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return errors.Join(err, f.Stop())
}

// settle is how long what is in some queue needs to get through, at least.
const settle = 30 * time.Millisecond

// counted is the protocol of which packets are counted where they arrive: what the
// IP header says that it carries.
func (b blast) counted(family int) uint8 {
	switch {
	case b.attack == traffic.SYNFlood:
		return unix.IPPROTO_TCP
	case b.attack == traffic.Fragments && family == 6:
		return unix.IPPROTO_FRAGMENT
	}
	return unix.IPPROTO_UDP
}

// blasting sends as much as it can and counts what arrives.
func (b blast) blasting() runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
		w, l, err := b.prepare(ctx, s)
		if err != nil {
			return nil, err
		}
		return arrivals(ctx, s, d, b.counted(s.family()), 0, traffic.Blast{Client: w.out, Ifindex: w.outIndex, Via: b.via, Load: l}.Start)
	}
}
