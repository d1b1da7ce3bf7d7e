package dataplane

import (
	"net/netip"
	"testing"

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
