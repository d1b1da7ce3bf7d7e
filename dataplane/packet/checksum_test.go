package packet_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// wordSum is RFC 1071 word by word.
func wordSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		if sum += w; sum > 0xffff {
			sum -= 0xffff
		}
	}
	return ^uint16(sum)
}

func TestSum(t *testing.T) {
	r := random{rand.New(rand.NewPCG(1, 1))}
	for n := range 200 {
		b := r.bytes(n)
		if n%3 == 0 {
			for i := range b {
				b[i] = 0xff // sums that carry
			}
		}
		if got, want := packet.Fold(packet.Sum(0, b)), wordSum(b); got != want {
			t.Errorf("%x: %04x, want %04x", b, got, want)
		}
		if even := n &^ 1; packet.Fold(packet.Sum(packet.Sum(0, b[:even/2&^1]), b[even/2&^1:])) != wordSum(b) {
			t.Errorf("%x: sum of two parts differs", b)
		}
	}
}

// TestSumCarries starts with the greatest sum, to which the words add their
// greatest, so that a carry meets a carry.
func TestSumCarries(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 20000 {
		b := bytes.Repeat([]byte{0xff}, 32+8*r.IntN(4))
		if at := r.IntN(len(b)); r.IntN(2) == 0 {
			b[at] = byte(r.Uint32())
		}
		if got, want := packet.Fold(packet.Sum(1<<64-1, b)), wordSum(b); got != want && got^want != 0xffff {
			t.Fatalf("%x: %04x, want %04x", b, got, want)
		}
	}
}

// The example of RFC 1071, section 3.
func TestSumRFC1071(t *testing.T) {
	if got := ^packet.Fold(packet.Sum(0, []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7})); got != 0xddf2 {
		t.Errorf("%04x, want ddf2", got)
	}
}

func TestChecksumRules(t *testing.T) {
	frame := ip4(tUDP, udp(4))
	h := parse(t, frame)
	packet.SetChecksums(frame, &h)
	sum := frame[int(h.L4)+6:][:2]
	if !packet.ChecksumsOK(frame, &h) {
		t.Error("what SetChecksums wrote is wrong")
	}
	copy(sum, []byte{0, 0})
	if !packet.ChecksumsOK(frame, &h) {
		t.Error("UDP over IPv4 without a checksum is refused")
	}
	copy(sum, []byte{1, 2})
	if packet.ChecksumsOK(frame, &h) {
		t.Error("a wrong checksum is accepted")
	}
	six := ip6(tUDP, udp(4))
	h6 := parse(t, six)
	if packet.ChecksumsOK(six, &h6) {
		t.Error("UDP over IPv6 without a checksum is accepted")
	}
	// A sum of 0 is written as ffff. Find the payload that has it.
	packet.SetChecksums(six, &h6)
	c := six[int(h6.L4)+6:][:2]
	copy(six[int(h6.L4)+8:], c)
	packet.SetChecksums(six, &h6)
	if !bytes.Equal(c, []byte{0xff, 0xff}) || !packet.ChecksumsOK(six, &h6) {
		t.Errorf("a sum of 0 is written as %x", c)
	}
	if packet.SetChecksums(six[:60], &h6) || packet.ChecksumsOK(six[:60], &h6) {
		t.Error("half a frame has right checksums")
	}
	head := ip4(tTCP, tcp(packet.TCPAck))
	hh := parse(t, head)
	packet.SetChecksums(head, &hh)
	head[l3+8]--
	if packet.ChecksumsOK(head, &hh) {
		t.Error("a wrong header checksum is accepted")
	}
}

func TestDecrementTTL(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		frame := ip4(tTCP, tcp(packet.TCPAck))
		binary.BigEndian.PutUint16(frame[l3+4:], uint16(r.Uint32()))
		frame[l3+8] = byte(r.Uint32())
		h := parse(t, frame)
		packet.SetChecksums(frame, &h)
		ttl, before := h.TTL, bytes.Clone(frame)
		ok := packet.DecrementTTL(frame, &h)
		if ok != (ttl > 1) {
			t.Fatalf("TTL %d: %v", ttl, ok)
		}
		if !ok {
			if !bytes.Equal(frame, before) || h.TTL != ttl {
				t.Fatalf("TTL %d: changed though it must not travel", ttl)
			}
			continue
		}
		if frame[l3+8] != ttl-1 || h.TTL != ttl-1 || !packet.ChecksumsOK(frame, &h) {
			t.Fatalf("TTL %d became %d, %x", ttl, frame[l3+8], frame)
		}
	}
	frame := eth(0x8100, tag(3, 0x86dd), ip6(tTCP, tcp(packet.TCPAck))[l3:])
	h := parse(t, frame)
	if !packet.DecrementTTL(frame, &h) || frame[l3+4+7] != 63 || h.TTL != 63 {
		t.Errorf("hop limit %d", frame[l3+4+7])
	}
	neigh := eth(0x0806, arp(1))
	h = parse(t, neigh)
	h.TTL = 9
	if packet.DecrementTTL(neigh, &h) || packet.DecrementTTL(nil, &h) {
		t.Error("decremented what has no TTL")
	}
}

func TestMACs(t *testing.T) {
	frame := ip4(tTCP, tcp(packet.TCPAck))
	if packet.DstMAC(frame) != (packet.MAC{2, 0, 0, 0, 0, 2}) || packet.SrcMAC(frame) != (packet.MAC{2, 0, 0, 0, 0, 1}) {
		t.Errorf("%x %x", packet.DstMAC(frame), packet.SrcMAC(frame))
	}
	if packet.DstMAC(frame[:13]) != (packet.MAC{}) || packet.SrcMAC(nil) != (packet.MAC{}) {
		t.Error("MACs of nothing")
	}
}
