package dataplane

import (
	"testing"

	"github.com/sluice-net/sluice/dataplane/flow"
)

// What comes by an uplink and claims to be of a pod of this node opens no flow
// there, of which the other end's packets would be replies: it goes on to the
// host, which knows whether it can be.
func TestUplinkSourceIsPod(t *testing.T) {
	w := newTestWorker(t)
	for _, c := range []struct {
		name string
		s    segment
		flow bool
	}{
		{"a pod's address", segment{src: addrA, dst: addrB, sport: 9000, dport: 53, udp: true}, false},
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
