package history_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/observe/history"
)

// TestRead compares what is read from anywhere with a slice of all events.
func TestRead(t *testing.T) {
	for size := 1; size < 6; size++ {
		r := history.New[int](size)
		total := 0
		for batch := range 7 {
			var events []int
			for range batch {
				events = append(events, total)
				total++
			}
			r.Append(events...)
			oldest, next := r.Bounds()
			if want := max(0, total-size); int(oldest) != want || int(next) != total {
				t.Fatalf("size %d: bounds %d, %d, want %d, %d", size, oldest, next, want, total)
			}
			for from := range total + 2 {
				for room := range size + 2 {
					dst := make([]int, room)
					start, n := r.Read(uint64(from), dst)
					wantStart := max(from, int(oldest))
					if int(start) != wantStart || n != max(0, min(room, total-wantStart)) {
						t.Fatalf("size %d of %d: read %d at %d from %d", size, total, n, start, from)
					}
					for i, v := range dst[:n] {
						if v != int(start)+i {
							t.Fatalf("event %d is %d", int(start)+i, v)
						}
					}
				}
			}
		}
	}
}

func TestWait(t *testing.T) {
	r := history.New[int](4)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := r.Wait(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing came, and Wait says %v", err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := r.Wait(t.Context(), 2); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range 3 {
		r.Append(i)
	}
	wg.Wait()
}

// A reader gets every event, or learns how many it missed.
func TestConcurrent(t *testing.T) {
	const total = 20_000
	r := history.New[int](64)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			var from uint64
			got, lost := 0, 0
			dst := make([]int, 16)
			for from < total {
				if err := r.Wait(t.Context(), from); err != nil {
					t.Error(err)
					return
				}
				start, n := r.Read(from, dst)
				lost += int(start - from)
				for i, v := range dst[:n] {
					if v != int(start)+i {
						t.Errorf("event %d is %d", int(start)+i, v)
					}
				}
				got += n
				from = start + uint64(n)
			}
			if got+lost != total {
				t.Errorf("%d read, %d lost, of %d", got, lost, total)
			}
		})
	}
	for i := range total {
		r.Append(i)
	}
	wg.Wait()
}
