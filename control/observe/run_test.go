package observe_test

import (
	"context"
	"testing"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/event"
)

// plenty is a source that always has as many events as are asked for, n in all.
type plenty struct {
	*observetest.Source
	recs []event.Record
	n    int
}

func (p *plenty) ReadEvents(_ context.Context, dst []event.Record) int {
	n := copy(dst[:min(len(dst), p.n)], p.recs)
	p.n -= n
	return n
}

// BenchmarkRun reads events of a worker into the history, which nobody reads.
func BenchmarkRun(b *testing.B) {
	src, err := observetest.New(64)
	if err != nil {
		b.Fatal(err)
	}
	p := &plenty{Source: src, n: b.N}
	for i := range 256 {
		r := observetest.TCP(i, 1, 2, 80)
		r.Egress, r.Ingress = 1, 2
		p.recs = append(p.recs, r)
	}
	b.ReportAllocs()
	observe.New(p, src, 1<<14, event.WantAll).Run(b.Context())
}
