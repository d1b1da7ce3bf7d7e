package classify_test

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// One goroutine makes tables and swaps them; workers load the pointer once a
// burst and never wait.
func ExampleUpdater() {
	web := rule.PeerID(0)
	set := &rule.Set{
		Peers:      1,
		Identities: []rule.Identity{{web}},
		Programs: []rule.Program{{Tiers: []rule.Tier{{
			Rules:   []rule.Rule{{Action: rule.Allow, Peers: []rule.PeerID{web}, Ports: []rule.PortRange{{Proto: 6, From: 443, To: 443}}, Cause: 1}},
			Default: rule.Deny, DefaultCause: 2,
		}}}},
		Endpoints: []rule.Endpoint{{ID: 1}},
	}
	updater, err := classify.NewUpdater(set)
	if err != nil {
		panic(err)
	}
	var current atomic.Pointer[classify.Table]
	current.Store(updater.Table())

	client := netip.MustParseAddr("10.0.0.7")
	ask := func() {
		table := current.Load()
		var out [1]classify.Verdict
		table.Classify([]classify.Query{{
			Remote: packet.AddrFrom(client), Row: table.Row(1, rule.Ingress), Proto: packet.ProtoTCP, Port: 443,
		}}, out[:])
		fmt.Println(out[0].Allowed(), table.Cause(out[0]))
	}
	ask()
	// A pod of the known labels appears.
	table, err := updater.Update(rule.Delta{Bind: []rule.Address{{Addr: client, Identity: 0}}})
	if err != nil {
		panic(err)
	}
	current.Store(table)
	ask()
	// Output:
	// false 2
	// true 1
}
