package flow_test

import (
	"math/rand/v2"
	"testing"

	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
)

const (
	syn    = packet.TCPSyn
	synAck = packet.TCPSyn | packet.TCPAck
	ack    = packet.TCPAck
	fin    = packet.TCPFin | packet.TCPAck
	rst    = packet.TCPRst
	rstAck = packet.TCPRst | packet.TCPAck
)

// step is one packet and what it must lead to. i is the initiator's.
type step struct {
	from  byte // 'i' or 'r'
	flags uint8
	want  flow.Status
	state flow.State
}

func TestTrackTCP(t *testing.T) {
	handshake := []step{
		{'i', syn, flow.Continue, flow.SynSent},
		{'r', synAck, flow.Continue, flow.SynRecv},
		{'i', ack, flow.Confirmed, flow.Established},
	}
	after := func(s ...step) []step { return append(append([]step{}, handshake...), s...) }
	for name, steps := range map[string][]step{
		"data": after(
			step{'i', ack | packet.TCPPsh, flow.Continue, flow.Established},
			step{'r', ack, flow.Continue, flow.Established}),
		"retransmitted handshake": {
			{'i', syn, flow.Continue, flow.SynSent},
			{'i', syn, flow.Continue, flow.SynSent},
			{'r', synAck, flow.Continue, flow.SynRecv},
			{'i', syn, flow.Continue, flow.SynRecv},
			{'r', synAck, flow.Continue, flow.SynRecv},
			{'i', ack, flow.Confirmed, flow.Established},
			{'r', synAck, flow.Continue, flow.Established},
			{'i', syn, flow.Continue, flow.Established},
		},
		"both close": after(
			step{'i', fin, flow.Closing, flow.FinWait},
			step{'i', fin, flow.Continue, flow.FinWait},
			step{'r', ack, flow.Continue, flow.FinWait},
			step{'r', fin, flow.Ended, flow.Closed},
			step{'i', ack, flow.Continue, flow.Closed},
			step{'r', fin, flow.Continue, flow.Closed}),
		"half closed keeps sending": after(
			step{'r', fin, flow.Closing, flow.FinWait},
			step{'i', ack, flow.Continue, flow.FinWait},
			step{'i', fin, flow.Ended, flow.Closed}),
		"reset":         after(step{'r', rst, flow.Ended, flow.Closed}, step{'r', rstAck, flow.Continue, flow.Closed}),
		"refused":       {{'i', syn, flow.Continue, flow.SynSent}, {'r', rstAck, flow.Ended, flow.Closed}},
		"reused by i":   after(step{'i', rst, flow.Ended, flow.Closed}, step{'i', syn, flow.Restart, flow.Closed}),
		"reused by r":   after(step{'i', rst, flow.Ended, flow.Closed}, step{'r', syn, flow.Restart, flow.Closed}),
		"syn against":   after(step{'r', syn, flow.Invalid, flow.Established}),
		"open from r":   {{'i', syn, flow.Continue, flow.SynSent}, {'r', syn, flow.Invalid, flow.SynSent}},
		"synack from i": {{'i', syn, flow.Continue, flow.SynSent}, {'i', synAck, flow.Invalid, flow.SynSent}},
		"syn after close of one": after(
			step{'i', fin, flow.Closing, flow.FinWait},
			step{'i', syn, flow.Continue, flow.FinWait},
			step{'r', syn, flow.Invalid, flow.FinWait}),
		"acks alone don't establish": {
			{'i', syn, flow.Continue, flow.SynSent},
			{'i', ack, flow.Continue, flow.SynSent},
			{'i', fin, flow.Continue, flow.SynSent},
		},
		"challenge ack, reset, again": {
			{'i', syn, flow.Continue, flow.SynSent},
			{'r', ack, flow.Continue, flow.SynSent},
			{'i', rst, flow.Ended, flow.Closed},
			{'i', syn, flow.Restart, flow.Closed},
		},
		"data before the handshake's end": {
			{'i', syn, flow.Continue, flow.SynSent},
			{'r', synAck, flow.Continue, flow.SynRecv},
			{'r', ack, flow.Continue, flow.SynRecv},
			{'i', fin, flow.Closing, flow.FinWait},
		},
		"mid-stream": {
			{'i', ack, flow.Continue, flow.Loose},
			{'i', ack, flow.Continue, flow.Loose},
			{'r', ack, flow.Confirmed, flow.Established},
		},
		"mid-stream synack": {
			{'i', synAck, flow.Continue, flow.Loose},
			{'i', synAck, flow.Continue, flow.Loose},
			{'r', ack, flow.Confirmed, flow.Established},
		},
		"mid-stream syn against": {{'i', ack, flow.Continue, flow.Loose}, {'r', syn, flow.Invalid, flow.Loose}},
		"mid-stream fin":         {{'i', fin, flow.Closing, flow.FinWait}, {'r', fin, flow.Ended, flow.Closed}},
		"mid-stream reset":       {{'i', rst, flow.Ended, flow.Closed}, {'i', ack, flow.Continue, flow.Closed}},
		"forged reset": after(
			step{'r', rst, flow.Ended, flow.Closed},
			step{'i', ack, flow.Continue, flow.Closed},
			step{'r', ack, flow.Confirmed, flow.Established},
			step{'r', rst, flow.Ended, flow.Closed}),
		"forged reset while closing": after(
			step{'i', fin, flow.Closing, flow.FinWait},
			step{'r', rst, flow.Ended, flow.Closed},
			step{'r', ack, flow.Confirmed, flow.FinWait},
			step{'r', fin, flow.Ended, flow.Closed}),
	} {
		for _, initiator := range []packet.Side{packet.SideA, packet.SideB} {
			t.Run(name, func(t *testing.T) { runSteps(t, initiator, steps) })
		}
	}
}

func runSteps(t *testing.T, initiator packet.Side, steps []step) {
	tab := newTable(t, 8)
	ref := insert(t, tab, keys(1, packet.ProtoTCP)[0], 0)
	e := tab.At(ref)
	e.Initiator = initiator
	var packets, bytes [2]uint64
	for n, s := range steps {
		side := initiator
		if s.from == 'r' {
			side = side.Other()
		}
		now := int64(n+1) * second
		late, before := e.State == flow.Closed, e.LastSeenNs
		got := tab.Track(ref, side, s.flags, 100+n, now)
		if got != s.want || e.State != s.state {
			t.Fatalf("step %d: status %d, state %v, want %d, %v", n, got, e.State, s.want, s.state)
		}
		if got < flow.Restart {
			packets[side]++
			bytes[side] += uint64(100 + n)
			want := now
			if late && e.State == flow.Closed {
				want = before
			}
			if e.LastSeenNs != want {
				t.Fatalf("step %d: last seen %d, want %d", n, e.LastSeenNs, want)
			}
		} else if e.LastSeenNs == now {
			t.Fatalf("step %d: a packet that does not belong refreshed the flow", n)
		}
		if e.Packets != packets || e.Bytes != bytes {
			t.Fatalf("step %d: counted %v %v, want %v %v", n, e.Packets, e.Bytes, packets, bytes)
		}
	}
}

func TestRestart(t *testing.T) {
	tab := newTable(t, 8)
	k := keys(1, packet.ProtoTCP)[0]
	ref := insert(t, tab, k, 0)
	e := tab.At(ref)
	e.Flags, e.Egress = flow.Offloaded|flow.Audit, 7
	tab.Track(ref, packet.SideA, rst, 60, second)
	if got := tab.Track(ref, packet.SideB, syn, 60, 2*second); got != flow.Restart {
		t.Fatalf("status %d, want Restart", got)
	}
	tab.Restart(ref, packet.SideB, 2*second)
	if e.State != flow.Unreplied || e.Initiator != packet.SideB || e.Flags != flow.Offloaded ||
		e.Egress != 0 || e.Packets != [2]uint64{} || e.CreatedNs != 2*second {
		t.Errorf("after Restart: %+v", *e)
	}
	if tab.Find(&k) != ref {
		t.Error("flow is lost after Restart")
	}
	if got := tab.Track(ref, packet.SideB, syn, 60, 2*second); got != flow.Continue || e.State != flow.SynSent {
		t.Errorf("SYN after Restart: status %d, state %v", got, e.State)
	}
	tab.Remove(ref)
	if tab.Len() != 0 || tab.Find(&k) != flow.NoRef {
		t.Error("flow is still there after Remove")
	}
}

func TestTrackOthers(t *testing.T) {
	for proto, want := range map[packet.Proto][3]int64{ // idle time before a reply, after it, and later on
		packet.ProtoUDP:    {30 * second, 30 * second, 180 * second},
		packet.ProtoICMP:   {30 * second, 30 * second, 30 * second},
		packet.ProtoICMPv6: {30 * second, 30 * second, 30 * second},
		packet.ProtoSCTP:   {600 * second, 600 * second, 600 * second},
		47:                 {600 * second, 600 * second, 600 * second},
	} {
		tab := newTable(t, 8)
		ref := insert(t, tab, keys(1, proto)[0], second)
		e := tab.At(ref)
		for _, s := range []struct {
			side  packet.Side
			now   int64
			want  flow.Status
			state flow.State
			idle  int64
		}{
			{packet.SideA, second, flow.Continue, flow.Unreplied, want[0]},
			{packet.SideA, 4 * second, flow.Continue, flow.Unreplied, want[0]},
			{packet.SideB, 3*second - 1, flow.Confirmed, flow.Established, want[1]},
			{packet.SideB, 3*second - 1, flow.Continue, flow.Established, want[1]},
			{packet.SideA, 3 * second, flow.Continue, flow.Established, want[2]},
		} {
			if got := tab.Track(ref, s.side, 0, 1, s.now); got != s.want || e.State != s.state {
				t.Errorf("proto %d at %d: status %d, state %v, want %d, %v", proto, s.now, got, e.State, s.want, s.state)
			}
			if d := tab.Deadline(e) - s.now; d != s.idle {
				t.Errorf("proto %d at %d: idle time %d, want %d", proto, s.now, d, s.idle)
			}
		}
	}
}

// oracle is a TCP flow as one would explain it: what each side has said.
type oracle struct {
	said    [2]map[uint8]bool // by initiator (0) and responder (1)
	packets [2]int
	first   uint8
	closed  bool
	reset   int // who reset a flow that was open: 0, 1, or -1
	opened  bool
	half    bool
}

func kind(flags uint8) uint8 {
	switch {
	case flags&packet.TCPRst != 0:
		return rst
	case flags&packet.TCPSyn != 0:
		return flags & synAck
	case flags&packet.TCPFin != 0:
		return fin
	}
	return ack
}

func (o *oracle) track(who int, k uint8) flow.Status {
	isFirst := o.packets[0]+o.packets[1] == 0
	fromSyn := o.first == syn
	status := flow.Continue
	switch k {
	case syn:
		if o.closed {
			return flow.Restart
		}
		if who == 1 {
			return flow.Invalid
		}
	case synAck:
		loose := !isFirst && !fromSyn && !o.opened && !o.half && !o.closed
		if who == 0 && !isFirst && !loose {
			return flow.Invalid
		}
	case rst:
		if !o.closed {
			o.closed, o.reset = true, -1
			if o.opened || o.half {
				o.reset = who
			}
			status = flow.Ended
		}
	case fin:
		switch {
		case o.closed:
		case o.half && o.said[1-who][fin]:
			o.closed = true
			status = flow.Ended
		case o.half:
		case isFirst || !fromSyn || o.opened || o.said[1][synAck]:
			o.half = true
			status = flow.Closing
		}
	case ack:
		switch {
		case o.closed && o.reset == who:
			o.closed, o.reset = false, -1
			o.half = o.said[0][fin] || o.said[1][fin]
			o.opened = true
			status = flow.Confirmed
		case o.closed || o.half || o.opened || isFirst:
		case fromSyn && o.said[1][synAck] && who == 0, !fromSyn && o.packets[1-who] > 0:
			o.opened = true
			status = flow.Confirmed
		}
	}
	if isFirst {
		o.first = k
	}
	o.said[who][k] = true
	o.packets[who]++
	return status
}

// TestTrackAgainstOracle sends random packets to the table and to a model that
// remembers everything that was said.
func TestTrackAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	choices := []uint8{syn, synAck, ack, ack, ack, fin, fin, rst, rstAck, ack | packet.TCPPsh, syn | packet.TCPUrg}
	tab := newTable(t, 8)
	k := keys(1, packet.ProtoTCP)[0]
	for range 30000 {
		ref := insert(t, tab, k, 0)
		e := tab.At(ref)
		e.Initiator = packet.Side(r.IntN(2))
		o := oracle{said: [2]map[uint8]bool{{}, {}}, reset: -1}
		var history []uint8
		for n := range 12 {
			who, flags := r.IntN(2), choices[r.IntN(len(choices))]
			if n == 0 {
				who = 0
				if r.IntN(2) == 0 {
					flags = syn
				}
			}
			history = append(history, uint8(who)<<7|flags)
			got := tab.Track(ref, e.Initiator^packet.Side(who), flags, 1, int64(n))
			want := o.track(who, kind(flags))
			if got != want || (e.State == flow.Closed) != o.closed ||
				!o.closed && (e.State == flow.FinWait) != o.half ||
				!o.closed && !o.half && (e.State == flow.Established) != o.opened {
				t.Fatalf("after %x: status %d, state %v, want %d, %+v", history, got, e.State, want, o)
			}
		}
		tab.Remove(ref)
	}
}
