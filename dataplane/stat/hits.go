package stat

import "sync/atomic"

// Kind is what a verdict was.
type Kind uint8

// The kinds of verdicts.
const (
	Allowed Kind = iota // a flow was let through
	Denied              // a packet was dropped
	Audited             // a flow was let through only because the deny is an audit
	numKinds
)

// Hit is how often something gave a verdict, and when it last did
// (CLOCK_REALTIME, nanoseconds; 0: never).
type Hit struct {
	Allowed, Denied, Audited uint64
	LastNs                   int64
}

// Add adds another count to h.
func (h *Hit) Add(o Hit) {
	h.Allowed += o.Allowed
	h.Denied += o.Denied
	h.Audited += o.Audited
	h.LastNs = max(h.LastNs, o.LastNs)
}

// hitPage is how many causes are counted side by side. A page never moves, so
// that the worker may count in it while more are added.
const hitPage = 256

type hitCell struct {
	n      [numKinds]atomic.Uint64
	lastNs atomic.Int64
}

// Hits are one worker's counts of verdicts by what gave them: the numbers of
// rule.Cause. What the same cause says again and again within a burst is added
// up before readers see it, so that a flood of denied packets costs a plain
// addition each.
//
// Count and Flush belong to the worker; Grow to whoever publishes rules, one at
// a time and before the worker meets the new numbers; Each is anyone's.
type Hits struct {
	_       [line]byte
	pending [2]pendingHit // by place, worker only
	_       [line]byte
	pages   atomic.Pointer[[]*[hitPage]hitCell]
	_       [line]byte
}

type pendingHit struct {
	id   uint32
	kind Kind
	n    uint64
	atNs int64
}

// Grow makes room for the numbers below n. It never shrinks.
func (h *Hits) Grow(n int) {
	var old []*[hitPage]hitCell
	if p := h.pages.Load(); p != nil {
		old = *p
	}
	want := (n + hitPage - 1) / hitPage
	if want <= len(old) {
		return
	}
	pages := make([]*[hitPage]hitCell, want)
	for i := copy(pages, old); i < want; i++ {
		pages[i] = new([hitPage]hitCell)
	}
	h.pages.Store(&pages)
}

// Count adds n verdicts of a cause, given at atNs (CLOCK_REALTIME); cause 0 is
// nobody. place, 0 or 1, keeps causes apart that take turns: egress and ingress
// of the same flows.
func (h *Hits) Count(place int, id uint32, kind Kind, n uint64, atNs int64) {
	if id == 0 {
		return
	}
	p := &h.pending[place&1]
	if p.id != id || p.kind != kind {
		h.flush(p)
		p.id, p.kind = id, kind
	}
	p.n += n
	p.atNs = atNs
}

// Flush shows readers what was counted.
func (h *Hits) Flush() {
	for i := range h.pending {
		h.flush(&h.pending[i])
	}
}

func (h *Hits) flush(p *pendingHit) {
	if p.n == 0 {
		return
	}
	if pages := h.pages.Load(); pages != nil && int(p.id/hitPage) < len(*pages) {
		c := &(*pages)[p.id/hitPage][p.id%hitPage]
		c.n[p.kind].Store(c.n[p.kind].Load() + p.n)
		c.lastNs.Store(p.atNs)
	}
	p.n = 0
}

// Each calls visit with every cause that gave a verdict, by number.
func (h *Hits) Each(visit func(id uint32, hit Hit)) {
	pages := h.pages.Load()
	if pages == nil {
		return
	}
	for i, page := range *pages {
		for j := range page {
			c := &page[j]
			hit := Hit{
				Allowed: c.n[Allowed].Load(), Denied: c.n[Denied].Load(), Audited: c.n[Audited].Load(),
				LastNs: c.lastNs.Load(),
			}
			if hit.Allowed|hit.Denied|hit.Audited != 0 {
				visit(uint32(i*hitPage+j), hit)
			}
		}
	}
}
