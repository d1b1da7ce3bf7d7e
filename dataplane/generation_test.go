package dataplane

import (
	"testing"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/xdpprog"
)

// An agent may end while an endpoint has no rules in force: a pod that has just
// come, or one whose rules went. Its successor must not count from the start,
// or flows in the kernel's caches would be of the present rules again.
func TestGenerationOutlivesAgent(t *testing.T) {
	var given []uint32 // what flows may have been admitted under
	var ep endpoint.Endpoint
	s := slot{}
	for range 3 {
		s.advance()
		s.ready = true
		given = append(given, s.gen)
	}
	for _, ready := range []bool{true, false} {
		s.ready = ready
		kernel := s.kernel(&ep)
		for _, g := range given[:len(given)-1] {
			if kernel.Gen == g {
				t.Errorf("in force %t: the kernel has the earlier number %d", ready, g)
			}
		}
		if (kernel.Gen == s.gen) != ready {
			t.Errorf("in force %t: the kernel has %#x of %d", ready, kernel.Gen, s.gen)
		}
		var next slot
		next.adopt(slotA, kernel, true)
		if next.ready != ready {
			t.Errorf("in force %t: adopted as %t", ready, next.ready)
		}
		// The kernel may not have been told of the last ones.
		if next.advance(); next.gen <= given[len(given)-1]+unheard {
			t.Errorf("in force %t: %v were given out, then %d", ready, given, next.gen)
		}
		was := next.gen
		if next.advance(); next.gen != was+1 {
			t.Errorf("in force %t: after %d comes %d", ready, was, next.gen)
		}
	}
	var fresh slot
	if fresh.adopt(slotA, xdpprog.Endpoint{}, true); fresh.ready {
		t.Error("a slot that never had rules is in force")
	}
	last := slot{gen: notInForce - 1}
	if last.advance(); last.gen != 1 {
		t.Errorf("after the last number comes %d", last.gen)
	}
}
