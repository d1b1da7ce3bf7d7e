package event_test

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"

	"github.com/sluice-net/sluice/bench/pmc"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
)

func newRing(tb testing.TB, records int, wake func()) *event.Ring {
	tb.Helper()
	r, err := event.NewRing(records, wake)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func record(n int) *event.Record {
	return &event.Record{TimeNs: int64(n), Bytes: [2]uint64{uint64(n), ^uint64(n)}, DurationNs: int64(-n)}
}

func isRecord(r *event.Record, n int) bool { return *r == *record(n) }

func TestNewRingSize(t *testing.T) {
	for _, n := range []int{2, 4, 1024} {
		if r := newRing(t, n, nil); r.Cap() != n {
			t.Errorf("capacity %d, want %d", r.Cap(), n)
		}
	}
	for _, n := range []int{-1, 0, 1, 3, 1000, 1 << 31} {
		_, err := event.NewRing(n, nil)
		var size *event.SizeError
		if !errors.As(err, &size) || size.Records != n {
			t.Errorf("%d records: %v", n, err)
		}
	}
}

func TestPutFlushRead(t *testing.T) {
	r := newRing(t, 8, nil)
	dst := make([]event.Record, 8)
	for i := range 3 {
		if !r.Put(record(i)) {
			t.Fatalf("put %d refused", i)
		}
	}
	if n := r.Read(dst); n != 0 {
		t.Fatalf("%d records before Flush", n)
	}
	r.Flush()
	if n := r.Read(dst[:2]); n != 2 || !isRecord(&dst[0], 0) || !isRecord(&dst[1], 1) {
		t.Fatalf("%d records: %+v", n, dst[:2])
	}
	if n := r.Read(nil); n != 0 {
		t.Fatalf("%d records into nothing", n)
	}
	if n := r.Read(dst); n != 1 || !isRecord(&dst[0], 2) {
		t.Fatalf("%d records: %+v", n, dst[0])
	}
}

func TestLost(t *testing.T) {
	r := newRing(t, 4, nil)
	for i := range 10 {
		if got, want := r.Put(record(i)), i < 4; got != want {
			t.Fatalf("put %d: %v, want %v", i, got, want)
		}
	}
	r.Flush()
	if r.Lost() != 6 {
		t.Fatalf("lost %d, want 6", r.Lost())
	}
	dst := make([]event.Record, 9)
	if n := r.Read(dst); n != 4 || !isRecord(&dst[0], 0) || !isRecord(&dst[3], 3) {
		t.Fatalf("%d records: %+v", n, dst[:n])
	}
	if !r.Put(record(10)) {
		t.Error("refused though there is room again")
	}
}

// A full ring shows what it holds without Flush: else a consumer could not
// make room before the end of a burst.
func TestFullRingIsVisible(t *testing.T) {
	r := newRing(t, 4, nil)
	for i := range 5 {
		r.Put(record(i))
	}
	if n := r.Read(make([]event.Record, 4)); n != 4 {
		t.Errorf("%d records, want 4", n)
	}
	big := newRing(t, 256, nil)
	for i := range 64 {
		big.Put(record(i))
	}
	if n := big.Read(make([]event.Record, 256)); n != 64 {
		t.Errorf("%d records held back at most, but %d of 64 seen", 64, n)
	}
}

func TestWake(t *testing.T) {
	woken := 0
	r := newRing(t, 8, func() { woken++ })
	r.Put(record(0))
	r.Flush()
	if woken != 0 {
		t.Fatal("woken without Arm")
	}
	if r.Arm() {
		t.Fatal("armed though there is something to read")
	}
	r.Read(make([]event.Record, 8))
	if !r.Arm() {
		t.Fatal("not armed though the ring is empty")
	}
	r.Flush()
	if woken != 0 {
		t.Fatal("woken by an empty Flush")
	}
	for range 2 {
		r.Put(record(1))
		r.Flush()
	}
	if woken != 1 {
		t.Fatalf("woken %d times, want once", woken)
	}
}

// FuzzRing drives a ring and a slice with the same steps, from any position of
// the indices, their wrap included.
func FuzzRing(f *testing.F) {
	f.Add(uint8(3), uint32(0), []byte{9, 9, 9, 1, 2, 3, 200, 100})
	f.Add(uint8(1), uint32(0xfffffff0), []byte{0, 0, 0, 255, 255, 0, 0, 0, 255, 128})
	f.Add(uint8(7), uint32(0xffffffff), []byte{255, 1, 255, 2, 255, 3})
	f.Fuzz(func(t *testing.T, log uint8, start uint32, steps []byte) {
		size := 2 << (log % 8)
		r := newRing(t, size, nil)
		event.StartAt(r, uint64(start))
		var held, visible []int
		var lost uint64
		next := 0
		dst := make([]event.Record, 300)
		for _, s := range steps {
			switch {
			case s < 128: // put as many
				for range s {
					fits := len(held)+len(visible) < size
					if got := r.Put(record(next)); got != fits {
						t.Fatalf("put %d with %d of %d: %v", next, len(held)+len(visible), size, got)
					}
					if fits {
						held = append(held, next)
					} else {
						lost++
					}
					// Put shows what it holds when the ring is full or at 64.
					if !fits || len(held) == 64 {
						visible, held = append(visible, held...), nil
					}
					next++
				}
			case s < 160:
				r.Flush()
				visible, held = append(visible, held...), nil
				if r.Written()-uint64(start)+r.Lost() != uint64(next) {
					t.Fatalf("%d written, %d lost, of %d", r.Written(), r.Lost(), next)
				}
				if r.Lost() != lost {
					t.Fatalf("lost %d, want %d", r.Lost(), lost)
				}
			default:
				want := min(int(s-160), len(visible))
				if n := r.Read(dst[:s-160]); n != want {
					t.Fatalf("read %d, want %d", n, want)
				}
				for i, w := range visible[:want] {
					if !isRecord(&dst[i], w) {
						t.Fatalf("record %+v, want %d", dst[i], w)
					}
				}
				visible = visible[want:]
			}
		}
	})
}

// TestConcurrent sends records through a small ring, with a slow consumer
// that sleeps until it is woken: none is torn, none comes twice or in another
// order, and those that don't come are counted.
func TestConcurrent(t *testing.T) {
	const total = 200_000
	wake := make(chan struct{}, 1)
	r := newRing(t, 64, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		rnd := rand.New(rand.NewPCG(1, 1))
		for i := 1; i <= total; i++ {
			r.Put(record(i))
			if rnd.IntN(20) == 0 {
				r.Flush()
			}
			if rnd.IntN(500) == 0 {
				runtime.Gosched()
			}
		}
		r.Flush()
	}()
	dst := make([]event.Record, 50)
	got, last := 0, 0
	read := func() bool {
		n := r.Read(dst)
		for i := range dst[:n] {
			v := int(dst[i].TimeNs)
			if v <= last || !isRecord(&dst[i], v) {
				t.Fatalf("record %+v after %d", dst[i], last)
			}
			last = v
		}
		got += n
		return n > 0
	}
	for running := true; running; {
		if read() || !r.Arm() {
			continue
		}
		select {
		case <-wake:
		case <-stop:
			running = false
		}
	}
	for read() {
	}
	if r.Written() != uint64(got) {
		t.Errorf("%d read, %d written", got, r.Written())
	}
	if uint64(got)+r.Lost() != total {
		t.Errorf("%d read, %d lost, want %d together", got, r.Lost(), total)
	}
}

// A record that is written in place is read as one that was copied; one that was
// not committed is not read, and its place is used next.
func TestNext(t *testing.T) {
	r := newRing(t, 4, nil)
	dst := make([]event.Record, 8)
	for round := range 3 { // over the end of the ring, where places hold old records
		for i := range 3 {
			*r.Next() = *record(99)
			*r.Next() = *record(10*round + i)
			r.Commit()
		}
		*r.Next() = *record(98)
		r.Flush()
		if n := r.Read(dst); n != 3 {
			t.Fatalf("%d records, want 3", n)
		}
		for i := range 3 {
			if !isRecord(&dst[i], 10*round+i) {
				t.Errorf("round %d: %+v", round, dst[i])
			}
		}
	}
	for range 4 {
		r.Put(record(1))
	}
	if r.Next() != nil || r.Next() != nil {
		t.Error("room in a full ring")
	}
	r.Flush()
	if r.Lost() != 2 || r.Written() != 9+4 {
		t.Errorf("%d lost, %d written", r.Lost(), r.Written())
	}
	rec := record(1)
	if rec.Clear(); *rec != (event.Record{}) {
		t.Errorf("cleared: %+v", rec)
	}
}

// A record is two cache lines, no more.
func TestRecordSize(t *testing.T) {
	if n := reflect.TypeFor[event.Record]().Size(); n != 128 {
		t.Errorf("%d bytes", n)
	}
}

func TestNoAllocs(t *testing.T) {
	r := newRing(t, 128, nil)
	rec := record(1)
	dst := make([]event.Record, 16)
	if n := testing.AllocsPerRun(1000, func() {
		for range 20 {
			r.Put(rec)
		}
		r.Flush()
		r.Read(dst)
		r.Arm()
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
	if r.Lost() == 0 {
		t.Error("the ring was never full")
	}
}

// write fills a record in as a worker does.
func write(rec *event.Record, key packet.Key, n int) {
	rec.Clear()
	rec.TimeNs, rec.Key, rec.Kind, rec.Allowed = int64(n), key, event.NewFlow, true
	rec.Src, rec.Dst, rec.Egress, rec.Ingress, rec.Generation = 1, 2, 3, 4, 5
	rec.TCPFlags = packet.TCPSyn
}

// BenchmarkPut puts bursts of 64 into a ring as large as a worker's: "in place" as
// workers do, "copied" from elsewhere; "read" reads them back in the same
// goroutine, which costs as much again.
func BenchmarkPut(b *testing.B) {
	key, _ := packet.MakeKey(packet.AddrV4(1), packet.AddrV4(2), 3, 4, packet.ProtoTCP)
	dst := make([]event.Record, 64)
	drain := func(r *event.Ring) { event.Drain(r) }
	read := func(r *event.Ring) { r.Read(dst) }
	for _, c := range []struct {
		name  string
		place bool
		every int
		take  func(*event.Ring)
	}{{"in place", true, 64, drain}, {"in place, flush=1", true, 1, drain}, {"copied", false, 64, drain}, {"in place, read", true, 64, read}} {
		b.Run(c.name, func(b *testing.B) {
			r := newRing(b, 1<<13, nil)
			n := 0
			defer pmc.Count(b)()
			for b.Loop() {
				if c.place {
					write(r.Next(), key, n)
					r.Commit()
				} else {
					var rec event.Record
					write(&rec, key, n)
					r.Put(&rec)
				}
				if n++; n%c.every == 0 {
					r.Flush()
				}
				if n%64 == 0 {
					c.take(r)
				}
			}
		})
	}
}

func BenchmarkPutFull(b *testing.B) {
	r := newRing(b, 64, nil)
	rec := record(1)
	defer pmc.Count(b)()
	for b.Loop() {
		r.Put(rec)
	}
}

// BenchmarkStream has a consumer on another core.
func BenchmarkStream(b *testing.B) {
	r := newRing(b, 1<<13, nil)
	key, _ := packet.MakeKey(packet.AddrV4(1), packet.AddrV4(2), 3, 4, packet.ProtoTCP)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		dst := make([]event.Record, 256)
		for {
			if r.Read(dst) == 0 {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
			}
		}
	}()
	n := 0
	defer pmc.Count(b)()
	for b.Loop() {
		if at := r.Next(); at != nil {
			write(at, key, n)
			r.Commit()
		}
		if n++; n%64 == 0 {
			r.Flush()
		}
	}
	r.Flush()
	close(stop)
	<-done
	b.ReportMetric(float64(r.Lost())/float64(b.N)*100, "%lost")
}
