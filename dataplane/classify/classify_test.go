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
	for i := range probes {
		probes[i] = ruletest.RandomProbe(rng, set)
	}
	compareProbes(t, table, set, probes)
}

func compareProbes(t *testing.T, table *classify.Table, set *rule.Set, probes []ruletest.Probe) {
	t.Helper()
	if err := table.CheckOffsets(); err != nil {
		t.Fatal(err)
	}
	q := queries(table, probes)
	out, portable := make([]classify.Verdict, len(probes)), make([]classify.Verdict, len(probes))
	table.Classify(q, out)
	table.ClassifyPortably(q, portable)
	for i, p := range probes {
		if out[i] != portable[i] {
			t.Fatalf("%+v: assembly says %#x, Go %#x", p, out[i], portable[i])
		}
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

// TestPortable compares lookups in assembly with those in Go, for each of the
// realistic clusters, both families and batches of both.
func TestPortable(t *testing.T) {
	for _, scale := range ruletest.Scales[:3] {
		set := sets[scale.Name]()
		table := build(t, set)
		if err := table.CheckOffsets(); err != nil {
			t.Fatal(err)
		}
		var mixed []classify.Query
		for _, v6 := range []bool{false, true} {
			q := queries(table, ruletest.Traffic{Seed: 9, Count: 1 << 13, IPv6: v6}.Trace(set))
			comparePortable(t, table, q)
			mixed = append(mixed, q...)
		}
		rng := rand.New(rand.NewPCG(9, 9))
		rng.Shuffle(len(mixed), func(i, k int) { mixed[i], mixed[k] = mixed[k], mixed[i] })
		for i := range mixed {
			if i%16 == 0 {
				mixed[i].Row, mixed[i].Proto = classify.Row(rng.Uint32()), packet.Proto(rng.Uint32())
			}
		}
		comparePortable(t, table, mixed)
	}
}

func comparePortable(t *testing.T, table *classify.Table, q []classify.Query) {
	t.Helper()
	out, portable := make([]classify.Verdict, len(q)), make([]classify.Verdict, len(q))
	table.Classify(q, out)
	table.ClassifyPortably(q, portable)
	for i := range q {
		if out[i] != portable[i] {
			t.Fatalf("%+v: assembly says %#x, Go %#x", q[i], out[i], portable[i])
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
	probes := make([]ruletest.Probe, 1000)
	for i := range probes {
		probes[i] = ruletest.RandomProbe(rng, set)
	}
	q, out := queries(table, probes), make([]classify.Verdict, len(probes))
	if n := testing.AllocsPerRun(100, func() { table.Classify(q, out) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

// TestBatches checks that a batch of any length gets the answers that its
// queries get alone.
func TestBatches(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	set := ruletest.Random(rng, ruletest.Small())
	table := build(t, set)
	for n := range 200 {
		probes := make([]ruletest.Probe, n)
		for i := range probes {
			probes[i] = ruletest.RandomProbe(rng, set)
		}
		q, out := queries(table, probes), make([]classify.Verdict, n+1)
		out[n] = 12345
		table.Classify(q, out)
		for i := range q {
			var alone [1]classify.Verdict
			if table.Classify(q[i:i+1], alone[:]); alone[0] != out[i] {
				t.Fatalf("query %d of %d: got %x, alone %x", i, n, out[i], alone[0])
			}
		}
		if out[n] != 12345 {
			t.Fatalf("batch of %d: wrote behind its end", n)
		}
	}
}

// FuzzAgainstOracle lets the fuzzer choose the seeds of sets and questions.
func FuzzAgainstOracle(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, seed*7, uint8(seed*30))
	}
	f.Fuzz(func(t *testing.T, a, b uint64, n uint8) {
		rng := rand.New(rand.NewPCG(a, b))
		set := ruletest.Random(rng, ruletest.Small())
		compare(t, build(t, set), set, rng, int(n))
	})
}
