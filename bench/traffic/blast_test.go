package traffic_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/traffic"
)

// capturing reads what arrives at a link by a packet socket of its own.
func capturing(t *testing.T, p pair) func(n int) [][]byte {
	t.Helper()
	fd := -1
	err := p.b.Do(func() (err error) {
		const all = unix.ETH_P_ALL
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all<<8|all>>8)); err != nil {
			return err
		}
		tv := unix.NsecToTimeval(int64(patience))
		return joinErr(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: p.ib}))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func(n int) (frames [][]byte) {
		buf := make([]byte, 1<<16)
		for len(frames) < n {
			got, _, err := unix.Recvfrom(fd, buf, 0)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				t.Fatalf("after %d of %d frames: %v", len(frames), n, err)
			}
			// IPv6 has things to say on a new link: to all.
			if buf[0]&1 == 0 {
				frames = append(frames, append([]byte(nil), buf[:got]...))
			}
		}
		return frames
	}
}

func joinErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (p pair) mix(flows int, sizes ...traffic.SizeShare) traffic.Mix {
	m := mix(flows, 0, sizes...)
	m.FromMAC, m.ToMAC = p.macA, p.macB
	return m
}

func (p pair) mix6(flows int, sizes ...traffic.SizeShare) traffic.Mix {
	m := p.mix(flows, sizes...)
	m.From, m.To = addrA6, addrB6
	return m
}

func (p pair) track(t *testing.T, family int, epoch uint16) (tr *traffic.Tracker) {
	t.Helper()
	err := p.b.Do(func() (err error) {
		tr, err = traffic.NewTracker(p.ib, family, epoch)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

var ways = []traffic.Via{traffic.PacketSocket, traffic.AFXDP}

// await waits for the end of a blast that has one.
func await(t *testing.T, f *traffic.Flooding) {
	t.Helper()
	select {
	case <-f.Done():
	case <-time.After(time.Minute):
		t.Fatalf("%d packets in a minute", f.Sent())
	}
	if err := f.Stop(); err != nil {
		t.Fatal(err)
	}
}

// What a capture at the far end sees is what was ordered: number, order, sizes
// and stamps; and the tracker agrees with the capture.
func TestBlastByCapture(t *testing.T) {
	const count, rate, epoch = 600, 20000, 0xbe1
	for _, via := range ways {
		for _, family := range []int{4, 6} {
			t.Run(fmt.Sprint(via, family), func(t *testing.T) {
				p := pairFor(t)
				mix, at, burst := p.mix(5, traffic.IMIX...), 42, 0
				if family == 6 { // in bursts: the same packets, due at the same times
					mix, at, burst = p.mix6(5, traffic.SizeShare{Bytes: 84, Share: 2}, traffic.SizeShare{Bytes: 1000, Share: 1}), 62, 100
				}
				load, err := mix.Load()
				if err != nil {
					t.Fatal(err)
				}
				capture, tracker := capturing(t, p), p.track(t, family, epoch)
				began := time.Now()
				f, err := traffic.Blast{
					Client: traffic.End{Space: p.a, CPU: traffic.AnyCPU}, Ifindex: p.ia, Via: via, Load: load,
					Rate: rate, Burst: burst, Count: count, Epoch: epoch,
				}.Start(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				await(t, f)
				if took := time.Since(began); took < (count-1)*time.Second/rate {
					t.Errorf("%d packets at %d a second took %v", count, rate, took)
				}
				frames := capture(count)
				var due uint64
				for i, frame := range frames {
					want := load.Frames[load.Order[i]]
					if len(frame) != len(want) || string(frame[:at-2]) != string(want[:at-2]) {
						t.Fatalf("frame %d: got %x, want %x", i, frame[:at], want[:at])
					}
					checkSum(t, frame)
					number, when := binary.BigEndian.Uint64(frame[at+2:]), binary.BigEndian.Uint64(frame[at+10:])
					if binary.BigEndian.Uint16(frame[at:]) != epoch || number != uint64(i) {
						t.Fatalf("frame %d has number %d", i, number)
					}
					if gap := when - due; i > 0 && (gap < 1e9/rate-1 || gap > 1e9/rate+1) {
						t.Fatalf("frame %d was due %d ns after the one before", i, gap)
					}
					due = when
				}
				seen, err := tracker.Track()
				if err != nil || seen.Received != count || seen.Next != count || seen.Late != 0 || seen.Latency.Count() != count {
					t.Errorf("tracked %+v (%v)", seen, err)
				}
			})
		}
	}
}

// Packets before the first number and after the last one leave as the others do,
// and nobody counts them.
func TestBlastWarmsUpAndTrails(t *testing.T) {
	const rate, epoch, trail = 20000, 0xbe2, 70
	p := pairFor(t)
	load, err := p.mix(3, traffic.SizeShare{Bytes: 64, Share: 1}).Load()
	if err != nil {
		t.Fatal(err)
	}
	capture, tracker := capturing(t, p), p.track(t, 4, epoch)
	f, err := traffic.Blast{
		Client: traffic.End{Space: p.a, CPU: traffic.AnyCPU}, Ifindex: p.ia, Load: load,
		Rate: rate, Epoch: epoch, Warmup: 20 * time.Millisecond, Trail: trail,
	}.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for f.Sent() < 200 { // behind or not
		time.Sleep(time.Millisecond)
	}
	if err := f.Stop(); err != nil {
		t.Fatal(err)
	}
	sent := f.Sent()
	before, after := 0, 0
	for numbered := uint64(0); after < trail; {
		number := binary.BigEndian.Uint64(capture(1)[0][44:])
		switch {
		case number>>63 == 0 && number == numbered && after == 0:
			numbered++
		case number>>63 == 1 && numbered == 0:
			before++
		case number>>63 == 1 && numbered == sent:
			after++
		default:
			t.Fatalf("number %x after %d of %d", number, numbered, sent)
		}
	}
	if before < 1 {
		t.Error("no packet to warm up")
	}
	seen, err := tracker.Track()
	if err != nil || seen.Received != sent || seen.Next != sent || seen.Late != 0 {
		t.Errorf("tracked %+v of %d (%v)", seen, sent, err)
	}
	if d := f.Elapsed(); d < time.Duration(sent-1)*time.Second/rate {
		t.Errorf("%d packets at %d a second in %v", sent, rate, d)
	}
}

// The tracker says what it costs, and refuses what it can't read.
func TestTrackerCost(t *testing.T) {
	spaceFor(t)
	for _, m := range []traffic.Mix{mix(1, 0, traffic.SizeShare{Bytes: 64, Share: 1}), (pair{}).mix6(1, traffic.SizeShare{Bytes: 84, Share: 1})} {
		m.FromMAC, m.ToMAC = macA, macB
		l, err := m.Load()
		if err != nil {
			t.Fatal(err)
		}
		if cost, err := traffic.TrackerCost(l); err != nil || cost <= 0 {
			t.Errorf("%v: %v, %v", m.From, cost, err)
		}
	}
	short, err := (pair{}).mix6(1, traffic.SizeShare{Bytes: 66, Share: 1}).Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*traffic.Load{{}, short} {
		if _, err := traffic.TrackerCost(l); err == nil {
			t.Errorf("%d frames: no error", len(l.Frames))
		}
	}
}

func TestBlastRefusesWhatItCannotStamp(t *testing.T) {
	end := traffic.End{Space: spaceFor(t), CPU: traffic.AnyCPU}
	load := func(m traffic.Mix) *traffic.Load {
		m.FromMAC, m.ToMAC = macA, macB
		l, err := m.Load()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	four, six := load(mix(1, 0, traffic.SizeShare{Bytes: 100, Share: 1})), load((pair{}).mix6(1, traffic.SizeShare{Bytes: 100, Share: 1}))
	for want, l := range map[string]*traffic.Load{
		"another family": {Frames: append(four.Frames, six.Frames...), Order: []uint32{0}},
		"too short":      load((pair{}).mix6(1, traffic.SizeShare{Bytes: 66, Share: 1})),
	} {
		if _, err := (traffic.Blast{Client: end, Ifindex: 1, Load: l, Epoch: 1}).Start(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Of two kinds of packets, the tracker sees one: the numbers tell what is lost.
func TestTrackerTellsLoss(t *testing.T) {
	const count, epoch = 1000, 7
	p := pairFor(t)
	load, err := p.mix(2, traffic.SizeShare{Bytes: 64, Share: 1}).Load()
	if err != nil {
		t.Fatal(err)
	}
	load.Frames[1][23] = unix.IPPROTO_UDPLITE
	load.Order = []uint32{0, 1}
	tracker := p.track(t, 4, epoch)
	f, err := traffic.Blast{Client: traffic.End{Space: p.a, CPU: traffic.AnyCPU}, Ifindex: p.ia, Load: load, Count: count, Epoch: epoch}.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	await(t, f)
	capture := tracker.Received
	awaitCount(t, capture)
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		seen, err := tracker.Track()
		if err != nil {
			t.Fatal(err)
		}
		if seen.Received == count/2 && seen.Next == count-1 && f.Sent() == count {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("tracked %+v of %d", seen, f.Sent())
		}
	}
}

// Another epoch's packets are none of the tracker's, and go on to others.
func TestTrackerKeepsToItsEpoch(t *testing.T) {
	p := pairFor(t)
	load, err := p.mix(1, traffic.SizeShare{Bytes: 64, Share: 1}).Load()
	if err != nil {
		t.Fatal(err)
	}
	other, own := p.track(t, 4, 1), p.track(t, 4, 2)
	f, err := traffic.Blast{Client: traffic.End{Space: p.a, CPU: traffic.AnyCPU}, Ifindex: p.ia, Load: load, Count: 100, Epoch: 2}.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	await(t, f)
	awaitCount(t, own.Received)
	if n, err := other.Received(); err != nil || n != 0 {
		t.Errorf("%d packets of another epoch, %v", n, err)
	}
}

// Packets that were due half a minute ago, a second ago or a moment ago are found in
// the histogram where they belong.
func TestTrackerTimes(t *testing.T) {
	p := pairFor(t)
	for number, age := range []time.Duration{30 * time.Second, time.Second, 40 * time.Millisecond} {
		load, err := p.mix(1, traffic.SizeShare{Bytes: 64, Share: 1}).Load()
		if err != nil {
			t.Fatal(err)
		}
		epoch := uint16(3 + number)
		tracker := p.track(t, 4, epoch)
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			t.Fatal(err)
		}
		stamp := load.Frames[0][42:]
		binary.BigEndian.PutUint16(stamp, epoch)
		binary.BigEndian.PutUint64(stamp[2:], uint64(5-number))
		binary.BigEndian.PutUint64(stamp[10:], uint64(now.Nano()-age.Nanoseconds()))
		f, err := traffic.Blast{Client: traffic.End{Space: p.a, CPU: traffic.AnyCPU}, Ifindex: p.ia, Load: load, Count: 1}.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		await(t, f)
		awaitCount(t, tracker.Received)
		seen, err := tracker.Track()
		if err != nil {
			t.Fatal(err)
		}
		slack := 10 * time.Second // of a machine that is busy with other things
		if got := seen.Latency.Quantile(0.5); got < age || got > age+age/100+slack {
			t.Errorf("age %v: got %v", age, got)
		}
		if seen.Next != uint64(6-number) {
			t.Errorf("number %d: next is %d", 5-number, seen.Next)
		}
	}
}

func TestBlastRefuses(t *testing.T) {
	p := pairFor(t)
	load, err := p.mix(1, traffic.SizeShare{Bytes: 9018, Share: 1}).Load()
	if err != nil {
		t.Fatal(err)
	}
	client := traffic.End{Space: p.a, CPU: traffic.AnyCPU}
	short := &traffic.Load{Frames: [][]byte{make([]byte, 59)}, Order: []uint32{0}}
	for want, b := range map[string]traffic.Blast{
		"nothing to send": {Client: client, Ifindex: p.ia},
		"-1 packets":      {Client: client, Ifindex: p.ia, Load: load, Rate: -1},
		"4096 at most":    {Client: client, Ifindex: p.ia, Load: load, Via: traffic.AFXDP},
		"too short":       {Client: client, Ifindex: p.ia, Load: short, Epoch: 1},
		"no such device":  {Client: client, Ifindex: 12345, Load: load},
		"pigeon":          {Client: client, Ifindex: p.ia, Load: load, Via: "pigeon"},
	} {
		if _, err := b.Start(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
}
