package flow

import (
	"time"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// Status is what a packet meant to its flow.
type Status uint8

const (
	// Continue: the packet belongs to the flow, nothing else changed.
	Continue Status = iota
	// Confirmed: with this packet both sides have been heard: a TCP handshake
	// finished, or a first reply came. The flow may be offloaded.
	Confirmed
	// Closing: with this packet one side of a TCP flow has closed.
	Closing
	// Ended: with this packet a TCP flow is over; it lingers as Closed.
	Ended
	// Restart: a SYN on a closed flow wants a new one. Nothing was changed: the
	// caller judges the packet in its own direction and calls Restart.
	Restart
	// Invalid: the packet fits no state of its flow (stat.InvalidState).
	// Nothing was changed.
	Invalid
)

const flagsOfState = packet.TCPSyn | packet.TCPAck | packet.TCPRst | packet.TCPFin

// Track accounts a packet to its flow, the first one included, and moves the
// flow's state on. flags are the packet's TCP flags, 0 for other protocols.
//
// TCP follows RFC 9293 as far as one can see from the middle without sequence
// numbers, and forgives what hosts really do: retransmitted SYNs and SYN+ACKs,
// challenge ACKs (RFC 5961), a first packet in mid-stream (after a restart of
// the agent). A reset after which its own sender goes on talking was forged,
// and the flow lives on. A simultaneous open is refused.
func (t *Table) Track(r Ref, side packet.Side, flags uint8, lenBytes int, nowNs int64) Status {
	e := &t.entries[r]
	status, was := Continue, e.State
	if e.Key.Proto == packet.ProtoTCP {
		status = e.trackTCP(side, flags)
		if status >= Restart {
			return status
		}
		e.TCPFlags[side&1] |= flags
	} else if e.State == Unreplied && side != e.Initiator {
		e.State = Established
		status = Confirmed
	}
	e.Packets[side&1]++
	e.Bytes[side&1] += uint64(lenBytes)
	if was != Closed || e.State != Closed { // what is late doesn't keep it
		e.LastSeenNs = nowNs
	}
	return status
}

// Restart makes a closed flow a new one that side opens: unreplied, without
// packets, flags (but Offloaded) and causes. The caller fills in what it judged
// and calls Track.
func (t *Table) Restart(r Ref, side packet.Side, nowNs int64) {
	e := &t.entries[r]
	*e = Entry{
		Key: e.Key, State: Unreplied, Initiator: side, Slot: e.Slot, Flags: e.Flags & Offloaded,
		CreatedNs: nowNs, LastSeenNs: nowNs, place: e.place,
	}
}

// Deadline returns when a flow expires unless it is heard of again.
func (t *Table) Deadline(e *Entry) int64 {
	state := e.State % numStates
	if state == Established && e.brief() {
		state = Unreplied
	}
	return e.LastSeenNs + t.idle[kindOf[e.Key.Proto]][state]
}

// streamNs is the age at which an answered UDP flow that still sends counts as
// a stream; Linux takes the same.
const streamNs = int64(2 * time.Second)

// brief reports whether a replied flow is ICMP, or UDP that is no stream.
func (e *Entry) brief() bool {
	switch kindOf[e.Key.Proto] {
	case kindICMP:
		return true
	case kindUDP:
		return e.LastSeenNs-e.CreatedNs < streamNs
	}
	return false
}

// trackTCP moves the state of a TCP flow on.
func (e *Entry) trackTCP(side packet.Side, flags uint8) Status {
	initiator := side == e.Initiator
	switch flags & flagsOfState &^ packet.TCPFin {
	case packet.TCPSyn:
		return e.onSyn(initiator)
	case packet.TCPSyn | packet.TCPAck:
		return e.onSynAck(initiator)
	case packet.TCPRst, packet.TCPRst | packet.TCPAck:
		return e.onReset(side)
	}
	if flags&packet.TCPFin != 0 {
		return e.onFin(side)
	}
	return e.onData(side)
}

func (e *Entry) onSyn(initiator bool) Status {
	switch {
	case e.State == Closed:
		return Restart
	case !initiator:
		return Invalid
	case e.State == Unreplied:
		e.State = SynSent
	}
	return Continue
}

func (e *Entry) onSynAck(initiator bool) Status {
	switch {
	case e.State == Unreplied: // its SYN was before our time
		e.State = Loose
	case initiator && e.State != Loose:
		return Invalid
	case e.State == SynSent:
		e.State = SynRecv
	}
	return Continue
}

// onReset closes the flow, whoever sent it and in whatever state.
func (e *Entry) onReset(side packet.Side) Status {
	if e.State == Closed {
		return Continue
	}
	// Only a flow that both sides took part in can be found alive again.
	if e.State == Established || e.State == FinWait {
		e.resetBy = 1 + uint8(side&1)
	}
	e.State = Closed
	return Ended
}

func (e *Entry) onFin(side packet.Side) Status {
	switch e.State {
	case SynSent:
		return Continue // nothing is open yet
	case Closed:
		return Continue
	case FinWait:
		if e.TCPFlags[side.Other()&1]&packet.TCPFin == 0 {
			return Continue // a retransmission
		}
		e.State = Closed
		return Ended
	}
	e.State = FinWait
	return Closing
}

// onData handles all that has neither SYN, RST nor FIN.
func (e *Entry) onData(side packet.Side) Status {
	switch e.State {
	case Unreplied:
		e.State = Loose
	case SynRecv:
		if side == e.Initiator {
			e.State = Established
			return Confirmed
		}
	case Loose:
		if e.Packets[side.Other()&1] > 0 {
			e.State = Established
			return Confirmed
		}
	case Closed:
		if e.resetBy == 1+uint8(side&1) {
			e.resetBy = 0
			e.TCPFlags[side&1] &^= packet.TCPRst
			e.State = Established
			if (e.TCPFlags[0]|e.TCPFlags[1])&packet.TCPFin != 0 {
				e.State = FinWait
			}
			return Confirmed
		}
	}
	return Continue
}
