package web

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/sluice-net/sluice/control/observe"
)

const (
	every    = 250 * time.Millisecond // a message
	patience = 10 * time.Second       // for a browser that does not read
	replay   = 4096                   // events of the history that a new stream begins with
	turn     = 4096                   // events between two looks at the clock
)

// message is what a browser gets.
type message struct {
	State
	PerSecond float64 `json:"perSecond"` // verdicts and ends, over the last minute
	Lost      uint64  `json:"lost"`      // events that the workers had no room for, since the stream began
	Missed    uint64  `json:"missed"`    // that this stream was too slow for
	Seen      uint64  `json:"seen"`      // that passed the filter, in this message
	Flows     []row   `json:"flows"`     // the newest of them, newest first
	Edges     []*edge `json:"edges"`     // all of them, summed up
	Hidden    uint64  `json:"hidden"`    // of edges that found no room
}

func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		http.Error(w, "too many browsers follow already", http.StatusServiceUnavailable)
		return
	}
	ctl := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	defer s.observer.Want(q.interest())()
	oldest, next := s.observer.Bounds()
	f := &follower{s: s, q: q, reader: s.observer.ReaderAt(max(oldest, next-min(next, replay))), sums: newSums(q.ends)}
	for first := true; ; first = false {
		m, err := f.next(r.Context(), first)
		if err != nil {
			return
		}
		text, err := json.Marshal(m)
		if err != nil {
			return // such values can't fail
		}
		// An error means that the browser is gone.
		if ctl.SetWriteDeadline(time.Now().Add(patience)) != nil {
			return
		}
		for _, part := range [][]byte{[]byte("data: "), text, []byte("\n\n")} {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
		if ctl.Flush() != nil {
			return
		}
	}
}

// follower reads the history for one browser.
type follower struct {
	s            *Server
	q            *query
	reader       *observe.Reader
	sums         *sums
	lost, missed uint64
}

// next reads for a while, or, the first time, what there is, and sums it up.
func (f *follower) next(ctx context.Context, first bool) (*message, error) {
	limit, cancel := context.WithTimeout(ctx, every)
	defer cancel()
	for n := 0; ; n++ {
		flow, missed := f.reader.Next()
		f.missed += missed
		if flow == nil {
			if first || f.reader.Wait(limit) != nil {
				break
			}
			n = 0
			continue
		}
		if flow.Lost > 0 {
			f.lost += flow.Lost
			continue
		}
		if f.q.match(flow) {
			f.sums.add(f.reader.Number(), flow)
		}
		if n >= turn && limit.Err() != nil {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := &message{State: f.s.state(), PerSecond: f.s.observer.Stats().PerSecond, Lost: f.lost, Missed: f.missed}
	f.sums.into(m)
	return m, nil
}
