package observe

import "context"

// Reader reads the history from some place on. It belongs to one goroutine.
type Reader struct {
	o      *Observer
	from   uint64 // number of the next event
	before uint64 // Before that it should have
	known  bool   // before is valid
	buf    [64]Flow
	held   []Flow
}

// ReaderAt returns a reader of the events from number from on.
func (o *Observer) ReaderAt(from uint64) *Reader {
	r := &Reader{o: o, from: from, known: from == 0}
	if from > 0 {
		if start, n := o.ring.Read(from-1, r.buf[:1]); n == 1 && start == from-1 {
			r.before, r.known = r.buf[0].After(), true
		}
	}
	return r
}

// ReaderOfAll is ReaderAt for who wants all events there ever were: what is gone
// from the history already, Next counts as missed.
func (o *Observer) ReaderOfAll() *Reader { return &Reader{o: o, known: true} }

// Bounds returns the numbers of the oldest event held and of the next one to
// come.
func (o *Observer) Bounds() (oldest, next uint64) { return o.ring.Bounds() }

// EachBack calls visit with the events held, newest first, with their numbers,
// until it returns false.
func (o *Observer) EachBack(visit func(number uint64, f *Flow) bool) {
	var buf [64]Flow
	oldest, next := o.ring.Bounds()
	for next > oldest {
		from := max(oldest, next-min(next, uint64(len(buf))))
		start, n := o.ring.Read(from, buf[:min(uint64(len(buf)), next-from)])
		for i := n - 1; i >= 0; i-- {
			if number := start + uint64(i); number < next && !visit(number, &buf[i]) {
				return
			}
		}
		if start > from {
			return // the ring has moved on past what was left
		}
		next = from
	}
}

// Next returns the next event, valid until the next call, or nil if there is
// none for now. missed counts what came before it and is gone from the history.
func (r *Reader) Next() (f *Flow, missed uint64) {
	if len(r.held) == 0 {
		start, n := r.o.ring.Read(r.from, r.buf[:])
		if n == 0 {
			return nil, 0
		}
		r.held, r.from = r.buf[:n], start+uint64(n)
	}
	f, r.held = &r.held[0], r.held[1:]
	if r.known {
		if missed = f.Before - r.before; missed > 0 {
			r.o.missed.Add(missed)
		}
	}
	r.before, r.known = f.After(), true
	return f, missed
}

// Number returns the number of the event that Next returns next.
func (r *Reader) Number() uint64 { return r.from - uint64(len(r.held)) }

// Wait returns when Next has something to return, or ctx ends.
func (r *Reader) Wait(ctx context.Context) error {
	if len(r.held) > 0 {
		return nil
	}
	return r.o.ring.Wait(ctx, r.from)
}
