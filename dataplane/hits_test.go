package dataplane

import (
	"maps"
	"testing"

	"github.com/sluice-net/sluice/dataplane/stat"
)

// Each verdict counts once for the rule or the default that gave it: a flow
// when it is allowed, each packet that is denied. What a live flow sends on
// counts for nobody.
func TestHits(t *testing.T) {
	w := newTestWorker(t)
	w.hits.Grow(3)
	syn := func(s segment) []byte { s.syn = true; return s.frame(t) }
	ack := func(s segment) []byte { s.ack = true; return s.frame(t) }
	for _, f := range [][]byte{syn(aToB(80)), ack(bToA(80)), ack(aToB(80)), syn(aToB(81)), syn(aToB(81)), syn(aToB(82))} {
		w.judgeOne(f)
	}
	spoofed := aToB(80)
	spoofed.src = out
	w.judgeOne(syn(spoofed)) // no policy's doing
	w.publish(testSet(2))
	w.judgeOne(ack(aToB(80))) // cut
	w.judgeOne(ack(bToA(80))) // its other end
	w.publish(testSet(3, web...))
	w.judgeOne(ack(aToB(80))) // allowed anew
	w.hits.Flush()
	got := map[uint32]stat.Hit{}
	w.hits.Each(func(id uint32, h stat.Hit) {
		if h.LastNs != w.wallNs {
			t.Errorf("cause %d: last at %d, want %d", id, h.LastNs, w.wallNs)
		}
		h.LastNs = 0
		got[id] = h
	})
	want := map[uint32]stat.Hit{1: {Allowed: 2}, 2: {Denied: 5}}
	if !maps.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
