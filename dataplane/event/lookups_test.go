package event_test

import (
	"testing"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
)

// However much one pod says while nobody reads, others still find room, and
// what it said is read and gives its share back.
func TestLookupShare(t *testing.T) {
	r := event.NewLookupRing()
	const loud, quiet = endpoint.ID(1), endpoint.ID(2)
	put := func(pod endpoint.ID, n int) (took int) {
		for range n {
			if r.Put(&event.Lookup{Pod: pod, Whole: true}, []byte("x")) {
				took++
			}
		}
		return took
	}
	const flood = 10_000
	took := put(loud, flood)
	if took == 0 || took == flood || !r.Full(loud) || r.Full(quiet) {
		t.Fatalf("took %d of %d, full %t and %t", took, flood, r.Full(loud), r.Full(quiet))
	}
	if n := put(quiet, took); n != took {
		t.Errorf("another pod found room for %d of %d", n, took)
	}
	var from [3]int
	r.Read(func(l *event.Lookup) { from[l.Pod]++ })
	if from[loud] != took || from[quiet] != took || r.Full(loud) {
		t.Errorf("read %v, still full: %t", from, r.Full(loud))
	}
	for pod := range endpoint.ID(100) { // all of them together have an end
		put(10+pod, took)
	}
	if !r.Full(quiet) {
		t.Error("there is no end")
	}
}
