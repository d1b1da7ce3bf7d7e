package dataplane

import "sync"

// linkTurns lets one at a time work on a link; those who work on others don't
// wait. The zero value is ready.
type linkTurns struct {
	mu   sync.Mutex
	busy map[int]chan struct{} // by index; closed when the turn ends
}

// take waits for the turn at a link, which lasts until done is called.
func (t *linkTurns) take(ifindex int) (done func()) {
	for {
		t.mu.Lock()
		ends, busy := t.busy[ifindex]
		if !busy {
			break
		}
		t.mu.Unlock()
		<-ends
	}
	defer t.mu.Unlock()
	if t.busy == nil {
		t.busy = make(map[int]chan struct{})
	}
	ends := make(chan struct{})
	t.busy[ifindex] = ends
	return func() {
		t.mu.Lock()
		delete(t.busy, ifindex)
		t.mu.Unlock()
		close(ends)
	}
}
