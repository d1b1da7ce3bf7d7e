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
	Count   uint64  // packets in all; 0: until Stop
	// Epoch, if not 0, has each packet stamped with it, its number and its
	// time, for a Tracker of the same epoch. The load's frames must be UDP over
	// IPv4.
	Epoch uint16
}

// The stamp, at the start of UDP's payload: the epoch (2 bytes), the packet's
// number (8), nanoseconds of the monotonic clock (8).
const stampLen = 18

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
	longest := 0
	for i, f := range b.Load.Frames {
		longest = max(longest, len(f))
		if b.Epoch != 0 && len(f) < udpData+stampLen {
			return nil, fmt.Errorf("blast: frame %d of %d bytes is too short for a stamp", i, len(f))
		}
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
		return b.send(g, out)
	})
	if _, err := await(g.crew, ready); err != nil {
		return nil, g.crew.dismiss(err)
	}
	return g, nil
}

func (b Blast) send(g *Flooding, out emitter) error {
	var sent uint64
	var lengths [batchSize]int
	at := 0
	begin := time.Now()
	mono, err := monotonic()
	if err != nil {
		return err
	}
	for !g.crew.stopped() && (b.Count == 0 || sent < b.Count) {
		n := uint64(batchSize)
		now := time.Since(begin)
		if b.Rate > 0 {
			due := uint64(now.Seconds()*b.Rate) + 1
			if due <= sent {
				pause(time.Duration(float64(sent)/b.Rate*1e9) - now)
				continue
			}
			n = min(n, due-sent)
			g.lag.Store(max(g.lag.Load(), int64(now)-int64(float64(sent)/b.Rate*1e9)))
		}
		if b.Count > 0 {
			n = min(n, b.Count-sent)
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
			number, when := sent+uint64(i), now
			if b.Rate > 0 {
				when = time.Duration(float64(number) / b.Rate * 1e9)
			}
			stamp(to, b.Epoch, number, mono+uint64(when))
		}
		if err := out.emit(lengths[:n]); err != nil {
			return err
		}
		sent += n
		g.sent.Store(sent)
	}
	if b.Count > 0 && sent == b.Count {
		close(g.done)
	}
	return nil
}

// Lag is how far the generator has been behind its rate at most.
func (g *Flooding) Lag() time.Duration { return time.Duration(g.lag.Load()) }

func stamp(frame []byte, epoch uint16, number, ns uint64) {
	p := frame[udpData : udpData+stampLen]
	binary.BigEndian.PutUint16(p, epoch)
	binary.BigEndian.PutUint64(p[2:], number)
	binary.BigEndian.PutUint64(p[10:], ns)
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
