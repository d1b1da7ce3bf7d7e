package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Via is how frames leave.
type Via string

const (
	// PacketSocket is sendmmsg on AF_PACKET, past the queueing discipline.
	PacketSocket Via = "packet"
	// AFXDP is the transmit ring of an AF_XDP socket on queue 0.
	AFXDP Via = "xdp"
)

// Blast sends a load out of a link, as fast as it can or at a rate.
//
// At a rate, packet i is due at i/rate after the start, whatever happened to
// those before it: a Blast that was held up sends what is due as fast as it can
// until it has caught up. Stamped packets carry the time at which they were due,
// not the one at which they left, so that a delay shows in all packets that it
// held up: what is called coordinated omission is avoided.
type Blast struct {
	Client  End
	Ifindex int // in the client's namespace
	Via     Via
	Load    *Load
	Rate    float64 // packets a second; 0: as fast as it can
	// Burst, if not 0, is how many packets leave at a time, when the last of them is
	// due. Who sends each when it is due has no time to sleep.
	Burst int
	Count uint64 // numbered packets in all; 0: until Stop
	// Epoch, if not 0, has each packet stamped with it, its number and its
	// time, for a Tracker of the same epoch. The load's frames must be UDP over
	// IPv4, or all over IPv6.
	Epoch uint16
	// Warmup is how long packets leave before the first that has a number, and
	// Trail how many leave after the last one: a Tracker drops them unseen. They
	// are at the blast's rate, and keep what is cold at the start, or left in a
	// ring at the end, out of what is counted.
	Warmup time.Duration
	Trail  int
}

// The stamp, at the start of UDP's payload: the epoch (2 bytes), the packet's
// number (8), nanoseconds of the monotonic clock (8). A number of which the
// highest bit is set is none.
const (
	stampLen   = 18
	unnumbered = 1 << 63
)

// trailPatience bounds how long a trail may take at the blast's rate: it has no more
// packets than are due then.
const trailPatience = 100 * time.Millisecond

// emitter takes frames and has the kernel send them.
type emitter interface {
	// buffer returns where the frame i of the next batch goes.
	buffer(i int) []byte
	// emit sends the first n frames, of these lengths. The frames that found no
	// room are lost.
	emit(lengths []int) error
	close() error
}

// Start starts the blast.
func (b Blast) Start(ctx context.Context) (*Flooding, error) {
	if b.Load == nil || len(b.Load.Order) == 0 {
		return nil, errors.New("blast: nothing to send")
	}
	if b.Rate < 0 {
		return nil, fmt.Errorf("blast: %g packets a second: want 0 or more", b.Rate)
	}
	longest, at := 0, 0
	for i, f := range b.Load.Frames {
		longest = max(longest, len(f))
		if b.Epoch == 0 {
			continue
		}
		udp := l4At(f)
		if udp == 0 || len(f) < udp+udpLen+stampLen {
			return nil, fmt.Errorf("blast: frame %d of %d bytes is too short for a stamp", i, len(f))
		}
		if i > 0 && udp != at {
			return nil, fmt.Errorf("blast: frame %d is of another family than those before", i)
		}
		at = udp
	}
	g := &Flooding{crew: newCrew(ctx), done: make(chan struct{})}
	ready := make(chan struct{})
	g.crew.hire(b.Client, "blast", func() (err error) {
		var out emitter
		switch b.Via {
		case AFXDP:
			out, err = newXDPEmitter(b.Ifindex, longest)
		case PacketSocket, "":
			out, err = newPacketEmitter(b.Ifindex, longest)
		default:
			err = fmt.Errorf("unknown way out %q", b.Via)
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, out.close()) }()
		close(ready)
		return b.send(g, out, at)
	})
	if _, err := await(g.crew, ready); err != nil {
		return nil, g.crew.dismiss(err)
	}
	return g, nil
}

// send sends; UDP begins at udp in each frame.
func (b Blast) send(g *Flooding, out emitter, udp int) error {
	var sent, first uint64 // in all; before the first that has a number
	var trailing uint64    // of the trail
	trail := uint64(b.Trail)
	if b.Rate > 0 {
		trail = min(trail, uint64(b.Rate*trailPatience.Seconds()))
	}
	var lengths [batchSize]int
	at, warm, ending := 0, b.Warmup > 0, false
	begin := time.Now()
	mono, err := monotonic()
	if err != nil {
		return err
	}
	for {
		now := time.Since(begin)
		if warm && now >= b.Warmup {
			warm, first = false, sent
			g.began.Store(b.when(sent, now))
		}
		all := !warm && b.Count > 0 && sent-first == b.Count
		if !ending && (all || g.crew.stopped()) {
			if all {
				close(g.done)
			}
			if warm {
				g.began.Store(int64(now))
			}
			g.ended.Store(int64(now))
			ending = true
		}
		n := uint64(batchSize)
		if ending {
			if trailing >= trail {
				return nil
			}
			n = min(n, trail-trailing)
		}
		if b.Rate > 0 {
			due := uint64(now.Seconds()*b.Rate) + 1
			if burst := uint64(max(b.Burst, 1)); due < sent+burst {
				pause(time.Duration(b.when(sent+burst-1, now)) - now)
				continue
			}
			n = min(n, due-sent)
			if !warm && !ending {
				g.lag.Store(max(g.lag.Load(), int64(now)-b.when(sent, now)))
			}
		}
		if b.Count > 0 && !warm && !ending {
			n = min(n, b.Count-(sent-first))
		}
		for i := range int(n) {
			frame := b.Load.Frames[b.Load.Order[at]]
			if at++; at == len(b.Load.Order) {
				at = 0
			}
			to := out.buffer(i)
			lengths[i] = copy(to, frame)
			if b.Epoch == 0 {
				continue
			}
			number, when := sent+uint64(i)-first, b.when(sent+uint64(i), now)
			if warm || ending {
				number |= unnumbered
			}
			stamp(to, udp, b.Epoch, number, mono+uint64(when))
		}
		if err := out.emit(lengths[:n]); err != nil {
			return err
		}
		sent += n
		switch {
		case ending:
			trailing += n
		case !warm:
			g.sent.Store(sent - first)
		}
	}
}

// when a packet is due, in ns since the start: now, if there is no rate.
func (b Blast) when(packet uint64, now time.Duration) int64 {
	if b.Rate > 0 {
		return int64(float64(packet) / b.Rate * 1e9)
	}
	return int64(now)
}

// Lag is how far the generator has been behind its rate at most, since the first
// packet that had a number.
func (g *Flooding) Lag() time.Duration { return time.Duration(g.lag.Load()) }

// Elapsed is how long numbered packets were sent, once the blast has ended.
func (g *Flooding) Elapsed() time.Duration { return time.Duration(g.ended.Load() - g.began.Load()) }

// stamp writes into the payload of UDP, and keeps its checksum right if it has one:
// the frame was made with a payload of zeros.
func stamp(frame []byte, udp int, epoch uint16, number, ns uint64) {
	p := frame[udp+udpLen : udp+udpLen+stampLen]
	binary.BigEndian.PutUint16(p, epoch)
	binary.BigEndian.PutUint64(p[2:], number)
	binary.BigEndian.PutUint64(p[10:], ns)
	field := frame[udp+6 : udp+8]
	if was := binary.BigEndian.Uint16(field); was != 0 {
		got := ^fold(uint32(^was) + sum(p))
		if got == 0 {
			got = 0xffff
		}
		binary.BigEndian.PutUint16(field, got)
	}
}

// monotonic is the clock that programs in the kernel read (bpf_ktime_get_ns).
func monotonic() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("read clock: %w", err)
	}
	return uint64(ts.Nano()), nil
}

// A sleep is late by some tens of microseconds; what is shorter is spun away,
// because a packet that is late is a fault of the generator.
const spin = 80 * time.Microsecond

// pause waits for about d, rather less.
func pause(d time.Duration) {
	if d > spin {
		ts := unix.NsecToTimespec(int64(d - spin))
		unix.Nanosleep(&ts, nil) // if a signal ends it early, the caller is back soon
	}
}
