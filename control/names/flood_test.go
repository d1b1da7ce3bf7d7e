package names_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// BenchmarkFlood measures an answer of 1,000 addresses that are all new to a pod
// that has taught as many as it may: the most that a hostile pod and its own
// resolver can ask for at a time.
func BenchmarkFlood(b *testing.B) {
	c := newClass(b, nil)
	next := uint32(0x0a000000)
	answer := func(id uint16) []byte {
		records := make([]record, 1000)
		for i := range records {
			next++
			records[i] = record{"a.test.", netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, next))), 300 + next%100}
		}
		return message(id, true, "a.test.", dnsmessage.TypeA, records...)
	}
	for id := range uint16(4) {
		c.ask(id, "a.test.", a4)
		c.tell(answer(id))
	}
	for b.Loop() {
		b.StopTimer()
		m := answer(9)
		b.StartTimer()
		c.ask(9, "a.test.", a4)
		c.tell(m)
	}
}
