package packet_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// leave puts the sum of the pseudo header in place of a packet's checksum, as
// the kernel does for hardware to finish (~csum_tcpudp_magic, net/ipv4/udp.c).
func leave(frame []byte, h *packet.Header) {
	at := int(h.L4) + 16
	if h.Proto == packet.ProtoUDP {
		at = int(h.L4) + 6
	}
	pseudo := slices.Clone(frame[h.L3+12 : h.L3+20])
	if h.EtherType == packet.EtherTypeIPv6 {
		pseudo = slices.Clone(frame[h.L3+8 : h.L3+40])
	}
	length := h.IPLen - uint32(h.L4-h.L3)
	pseudo = binary.BigEndian.AppendUint32(pseudo, length)
	pseudo = append(pseudo, 0, 0, 0, byte(h.Proto))
	binary.BigEndian.PutUint16(frame[at:], ^wordSum(pseudo))
}

// partials are packets of both protocols and families, with payloads of all
// small lengths.
func partials(n int) (frames [][]byte) {
	r := random{rand.New(rand.NewPCG(3, uint64(n)))}
	t, u := append(tcp(packet.TCPAck), r.bytes(n)...), udp(n)
	copy(u[8:], r.bytes(n))
	return [][]byte{ip4(tTCP, t), ip6(tTCP, t), ip4(tUDP, u), ip6(tUDP, u)}
}

func TestFinishChecksum(t *testing.T) {
	for n := range 120 {
		for _, frame := range partials(n) {
			h := parse(t, frame)
			whole := slices.Clone(frame)
			packet.SetChecksums(whole, &h)
			if packet.Unfinished(whole, &h) {
				t.Errorf("%v: finished, and taken for unfinished", whole)
			}
			frame = slices.Clone(whole)
			leave(frame, &h)
			if !packet.Unfinished(frame, &h) {
				t.Fatalf("%v, %d bytes: taken for finished", h.Proto, n)
			}
			padded := append(slices.Clone(frame), 1, 2, 3, 4, 5, 6)
			if !packet.FinishChecksum(frame, &h) || !bytes.Equal(frame, whole) {
				t.Errorf("%v, %d bytes: got %x, want %x", h.Proto, n, frame, whole)
			}
			if !packet.FinishChecksum(padded, &h) || !bytes.Equal(padded[:len(whole)], whole) {
				t.Errorf("%v, %d bytes and padding: wrong", h.Proto, n)
			}
		}
	}
}

// TestFinishChecksumParts cuts packets anywhere behind their headers.
func TestFinishChecksumParts(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 2000 {
		for _, frame := range partials(60 + r.IntN(60)) {
			h := parse(t, frame)
			whole := slices.Clone(frame)
			packet.SetChecksums(whole, &h)
			frame = slices.Clone(whole)
			leave(frame, &h)
			one := int(h.L4) + 20 + r.IntN(20)
			two := one + r.IntN(len(frame)-one)
			if !packet.FinishChecksum(frame[:one:one], &h, frame[one:two], frame[two:]) || !bytes.Equal(frame, whole) {
				t.Fatalf("%v, cut at %d and %d of %d: wrong", h.Proto, one, two, len(frame))
			}
			before := slices.Clone(frame)
			if packet.FinishChecksum(frame[:one:one], &h) || !bytes.Equal(frame, before) {
				t.Fatal("finished what was cut off")
			}
		}
	}
}

func TestFinishChecksumAllocates(t *testing.T) {
	frame := partials(1000)[0]
	h := parse(t, frame)
	leave(frame, &h)
	parts := [][]byte{frame[100:]}
	if n := testing.AllocsPerRun(100, func() {
		packet.Unfinished(frame, &h)
		packet.FinishChecksum(frame[:100], &h, parts...)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkFinishChecksum(b *testing.B) {
	frame := partials(1400)[0]
	h := packet.Header{}
	packet.Parse(frame, &h)
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		packet.Unfinished(frame, &h)
		packet.FinishChecksum(frame, &h)
	}
}
