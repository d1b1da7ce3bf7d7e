package classify_test

import (
	"sync"
	"testing"

	"github.com/sluice-net/sluice/bench/pmc"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// sets holds each benchmark's Set once, as they take a while to draw.
var sets = map[string]func() *rule.Set{}

func init() {
	for _, s := range ruletest.Scales {
		sets[s.Name] = sync.OnceValue(s.Cluster.Set)
	}
}

func build(b testing.TB, set *rule.Set) *classify.Table {
	b.Helper()
	table, err := classify.Build(set)
	if err != nil {
		b.Fatal(err)
	}
	return table
}

func queries(table *classify.Table, probes []ruletest.Probe) []classify.Query {
	q := make([]classify.Query, len(probes))
	for i, p := range probes {
		q[i] = classify.Query{
			Remote: packet.AddrFrom(p.Remote), Row: table.Row(p.Endpoint, p.Direction),
			Port: p.Port, Proto: packet.Proto(p.Proto),
		}
	}
	return q
}

// BenchmarkClassify measures batches of 64, out of a trace that is longer than
// the caches of a core.
func BenchmarkClassify(b *testing.B) {
	for _, scale := range ruletest.Scales {
		for _, traffic := range []struct {
			name string
			ruletest.Traffic
		}{
			{"uniform/v4", ruletest.Traffic{Seed: 1, Count: 1 << 17}},
			{"uniform/v6", ruletest.Traffic{Seed: 1, Count: 1 << 17, IPv6: true}},
			{"zipf/v4", ruletest.Traffic{Seed: 1, Count: 1 << 17, Zipf: true}},
			{"zipf/v6", ruletest.Traffic{Seed: 1, Count: 1 << 17, Zipf: true, IPv6: true}},
		} {
			b.Run(scale.Name+"/"+traffic.name, func(b *testing.B) {
				set := sets[scale.Name]()
				table := build(b, set)
				q := queries(table, traffic.Trace(set))
				var out [64]classify.Verdict
				b.ReportAllocs()
				at := 0
				defer pmc.Count(b)()
				for b.Loop() {
					table.Classify(q[at:at+64], out[:])
					at = (at + 64) % len(q)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/lookup")
			})
		}
	}
}

// BenchmarkBuild measures a full build.
func BenchmarkBuild(b *testing.B) {
	for _, scale := range ruletest.Scales {
		b.Run(scale.Name, func(b *testing.B) {
			set := sets[scale.Name]()
			b.ReportAllocs()
			defer pmc.Count(b)()
			for b.Loop() {
				build(b, set)
			}
		})
	}
}
