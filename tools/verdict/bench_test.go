package verdict_test

import (
	"math/rand/v2"
	"testing"

	"github.com/sluice-net/sluice/tools/verdict"
	"github.com/sluice-net/sluice/tools/verdict/verdicttest"
)

// BenchmarkLoad measures from manifests to the first answer.
func BenchmarkLoad(b *testing.B) {
	path, err := verdicttest.Random(rand.New(rand.NewPCG(3, 3))).Write(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c, err := verdict.Load(path, nil)
		if err != nil {
			b.Fatal(err)
		}
		if a := c.Answer(verdict.ParseQuery([]byte(`{"src":"ip:10.0.0.1","dst":"ip:10.0.0.2","port":80}`))); a.Error != "" {
			b.Fatal(a.Error)
		}
	}
}

// BenchmarkAnswer measures a later answer.
func BenchmarkAnswer(b *testing.B) {
	path, err := verdicttest.Random(rand.New(rand.NewPCG(3, 3))).Write(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	c, err := verdict.Load(path, nil)
	if err != nil {
		b.Fatal(err)
	}
	q := verdict.ParseQuery([]byte(`{"src":"ip:10.0.0.1","dst":"ip:10.0.0.2","port":80}`))
	for b.Loop() {
		c.Answer(q)
	}
}
