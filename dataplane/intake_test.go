package dataplane

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/dataplane/flow"
)

// What comes by an uplink and claims to be of this node, or of nobody who could be
// beyond it, opens no flow there, of which the pod's own packets would be replies:
// it goes on to the host, which knows whether it can be.
func TestUplinkSource(t *testing.T) {
	w := newTestWorker(t)
	for _, c := range []struct {
		name string
		s    segment
		flow bool
	}{
		{"a pod's address", segment{src: addrA, dst: addrB, sport: 9000, dport: 53, udp: true}, false},
		{"the node's own", segment{src: node, dst: addrA, sport: 9000, dport: 53, udp: true}, false},
		{"a loopback", segment{src: netip.MustParseAddr("127.0.0.1"), dst: addrA, sport: 9000, dport: 53, udp: true}, false},
		{"a group", segment{src: netip.MustParseAddr("224.0.0.5"), dst: addrA, sport: 9000, dport: 53, udp: true}, false},
		{"nobody", segment{src: netip.IPv4Unspecified(), dst: addrA, sport: 9000, dport: 53, udp: true}, false},
		{"of the link", segment{src: netip.MustParseAddr("169.254.0.9"), dst: addrA, sport: 9000, dport: 53, udp: true}, false},
		{"a stranger's", segment{src: out, dst: addrA, sport: 9000, dport: 53, udp: true}, true},
	} {
		w.put(c.s.frame(t))
		p := &w.b.pkts[0]
		p.from = &uplinkQueue{}
		w.process(w.snap)
		if p.verb != verbResume {
			t.Errorf("%s: verb %d (%v), want it to go on", c.name, p.verb, p.reason)
		}
		if got := w.flows.Find(&p.key) != flow.NoRef; got != c.flow {
			t.Errorf("%s: opened a flow: %t", c.name, got)
		}
	}
}

// What comes by an uplink and is in any way odd goes on as it is, unjudged: it is
// judged at the pod's link.
func TestUplinkInDoubt(t *testing.T) {
	s := segment{src: out, dst: addrB, sport: 9000, dport: 9000, udp: true}
	plain := s.frame(t)
	tagged := append(append(append([]byte{}, plain[:12]...), 0x81, 0, 0, 5), plain[12:]...)
	unreachable := func() []byte {
		buf := gopacket.NewSerializeBuffer()
		answered := segment{src: addrB, dst: out, sport: 9000, dport: 9000, udp: true}.frame(t)
		err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true},
			&layers.Ethernet{SrcMAC: net.HardwareAddr(macA[:]), DstMAC: net.HardwareAddr(hostB[:]), EthernetType: layers.EthernetTypeIPv4},
			&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: out.AsSlice(), DstIP: addrB.AsSlice()},
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 1)}, gopacket.Payload(answered[14:42]))
		if err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	for _, c := range []struct {
		name  string
		frame []byte
		ready bool
		verb  verb
	}{
		{"plain, and denied", plain, true, verbDrop},
		{"for a pod without rules", plain, false, verbResume},
		{"with a VLAN", tagged, true, verbResume},
		{"first fragment", fragment(plain, 7, true), true, verbResume},
		{"later fragment", fragment(plain, 7, false), true, verbResume},
		{"ICMP error", unreachable(), true, verbResume},
		{"cut short", plain[:40], true, verbResume},
	} {
		w := newTestWorker(t)
		if !c.ready {
			w.change(func(snap *snapshot) { snap.local[slotB].gen = 0 })
		}
		w.put(c.frame)
		p := &w.b.pkts[0]
		p.from = &uplinkQueue{}
		w.process(w.snap)
		if p.verb != c.verb || w.flows.Len() > 0 {
			t.Errorf("%s: verb %d (%v), %d flows", c.name, p.verb, p.reason, w.flows.Len())
		}
	}
}
