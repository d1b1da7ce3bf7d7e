package flow

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// FragmentConfig sizes a Fragments table.
type FragmentConfig struct {
	Capacity  int   // datagrams under way
	TimeoutNs int64 // Linux reassembles for 30 s (IPv4) and 60 s (IPv6)
}

// DefaultFragments returns room for 4096 datagrams for 30 seconds.
func DefaultFragments() FragmentConfig {
	return FragmentConfig{Capacity: 4096, TimeoutNs: int64(30 * time.Second)}
}

// Fragments remembers the transport header of fragmented datagrams whose
// first fragment was let through, so that later fragments, which have none,
// follow it. One goroutine owns it. A datagram that finds its set of 8 full
// takes the place of an expired or else the oldest one there; 64 bytes each.
type Fragments struct {
	hasher    packet.Hasher
	timeoutNs int64
	sets      [][ways]datagram
}

// datagram is free if seenNs is 0.
type datagram struct {
	key              packet.FragKey
	srcPort, dstPort uint16
	headers          uint16
	proto            packet.Proto
	icmpType         uint8
	icmpCode         uint8
	seenNs           int64
}

// NewFragments returns a table for about cfg.Capacity datagrams.
func NewFragments(cfg FragmentConfig, hasher packet.Hasher) (*Fragments, error) {
	if cfg.Capacity < 1 || cfg.Capacity > maxCapacity || cfg.TimeoutNs <= 0 {
		return nil, fmt.Errorf("create fragment table: capacity %d, timeout %v: want both positive",
			cfg.Capacity, time.Duration(cfg.TimeoutNs))
	}
	return &Fragments{
		hasher:    hasher,
		timeoutNs: cfg.TimeoutNs,
		sets:      make([][ways]datagram, (cfg.Capacity+ways-1)/ways),
	}, nil
}

// Learn remembers an allowed first fragment.
func (f *Fragments) Learn(h *packet.Header, nowNs int64) {
	k := h.FragKey()
	set := f.set(&k)
	d := &set[0]
	for i := range set {
		if set[i].seenNs != 0 && set[i].key == k {
			d = &set[i]
			break
		}
		if set[i].seenNs < d.seenNs {
			d = &set[i]
		}
	}
	*d = datagram{
		key: k, srcPort: h.SrcPort, dstPort: h.DstPort, headers: h.FragHeaders,
		proto: h.Proto, icmpType: h.ICMPType, icmpCode: h.ICMPCode, seenNs: nowNs,
	}
}

// Resolve fills the protocol and the ports of a later fragment into h, as its
// first fragment had them. It returns stat.BadFragment if that is unknown, or
// if this one would overwrite the header that was judged.
func (f *Fragments) Resolve(h *packet.Header, nowNs int64) stat.Reason {
	k := h.FragKey()
	d := f.find(&k)
	if d == nil || nowNs-d.seenNs >= f.timeoutNs || h.FragOffset < d.headers {
		return stat.BadFragment
	}
	h.Proto, h.SrcPort, h.DstPort = d.proto, d.srcPort, d.dstPort
	h.ICMPType, h.ICMPCode = d.icmpType, d.icmpCode
	return stat.OK
}

// Forget drops a datagram, because a first fragment of it was denied.
func (f *Fragments) Forget(h *packet.Header) {
	k := h.FragKey()
	if d := f.find(&k); d != nil {
		*d = datagram{}
	}
}

func (f *Fragments) find(k *packet.FragKey) *datagram {
	set := f.set(k)
	for i := range set {
		if set[i].seenNs != 0 && set[i].key == *k {
			return &set[i]
		}
	}
	return nil
}

func (f *Fragments) set(k *packet.FragKey) *[ways]datagram {
	hash := f.hasher.Hash(&packet.Key{
		A: k.Src, B: k.Dst, APort: uint16(k.ID >> 16), BPort: uint16(k.ID), Proto: k.Proto,
	})
	i, _ := bits.Mul64(hash, uint64(len(f.sets)))
	return &f.sets[i]
}
