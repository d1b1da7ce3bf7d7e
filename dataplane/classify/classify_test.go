package classify_test

import (
	"math/rand/v2"
	"testing"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// compare asks a table and the oracle the same random questions.
func compare(t *testing.T, table *classify.Table, set *rule.Set, rng *rand.Rand, n int) {
	t.Helper()
	probes := make([]ruletest.Probe, n)
	queries := make([]classify.Query, n)
	for i := range probes {
		p := ruletest.RandomProbe(rng, set)
		probes[i] = p
		queries[i] = classify.Query{
			Remote: packet.AddrFrom(p.Remote), Row: table.Row(p.Endpoint, p.Direction),
			Port: p.Port, Proto: packet.Proto(p.Proto),
		}
	}
	out := make([]classify.Verdict, n)
	table.Classify(queries, out)
	for i, p := range probes {
		action, audit, log, cause := ruletest.Evaluate(set, p.Endpoint, p.Direction, p.Remote, p.Proto, p.Port)
		v := out[i]
		if v.Allowed() != (action == rule.Allow) || v.Audit() != audit || v.Log() != log || table.Cause(v) != cause {
			t.Fatalf("%+v: got allowed=%v audit=%v log=%v cause=%d, want %v audit=%v log=%v cause=%d",
				p, v.Allowed(), v.Audit(), v.Log(), table.Cause(v), action, audit, log, cause)
		}
	}
}

// TestAgainstOracle compares random sets with the oracle.
func TestAgainstOracle(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		set := ruletest.Random(rng, ruletest.Small())
		table, err := classify.Build(set)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if table.Set() != set {
			t.Fatal("Set is not what the table was built from")
		}
		compare(t, table, set, rng, 100+rng.IntN(100))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestNoAllocs guards the hot path.
func TestNoAllocs(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	set := ruletest.Random(rng, ruletest.Small())
	table, err := classify.Build(set)
	if err != nil {
		t.Fatal(err)
	}
	queries, out := make([]classify.Query, 1000), make([]classify.Verdict, 1000)
	for i := range queries {
		p := ruletest.RandomProbe(rng, set)
		queries[i] = classify.Query{Remote: packet.AddrFrom(p.Remote), Row: table.Row(p.Endpoint, p.Direction), Port: p.Port, Proto: packet.Proto(p.Proto)}
	}
	if n := testing.AllocsPerRun(100, func() { table.Classify(queries, out) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}
