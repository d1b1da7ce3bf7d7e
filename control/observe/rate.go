package observe

import (
	"sync"
	"time"
)

// rate counts events over the last minute, by the second.
type rate struct {
	mu    sync.Mutex
	since int64 // second of the first event
	at    [60]int64
	n     [60]uint64
}

func (r *rate) add(timeNs int64, n uint64) {
	s := timeNs / int64(time.Second)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since == 0 {
		r.since = s
	}
	i := s % int64(len(r.at))
	if r.at[i] != s {
		r.at[i], r.n[i] = s, 0
	}
	r.n[i] += n
}

func (r *rate) perSecond(now time.Time) float64 {
	s := now.Unix()
	r.mu.Lock()
	defer r.mu.Unlock()
	var sum uint64
	for i, at := range r.at {
		if s-at < int64(len(r.at)) {
			sum += r.n[i]
		}
	}
	if sum == 0 {
		return 0
	}
	return float64(sum) / float64(min(max(s-r.since, 1), int64(len(r.at))))
}
