package xsk

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// UMEMConfig says how large a UMEM is and how it is divided.
type UMEMConfig struct {
	// Frames is the number of frames.
	Frames int
	// FrameSize is 2048 or 4096 bytes, never more than a page. The kernel
	// keeps 256 bytes (XDP_PACKET_HEADROOM) of each received frame.
	FrameSize int
	// Headroom is left free before a received packet, on top of those 256.
	Headroom int
	// HugePages asks for 2 MiB pages; without them the UMEM falls back to
	// normal pages and UMEM.HugePages says so.
	HugePages bool
}

// DefaultUMEM returns 4096 frames of 2048 bytes.
func DefaultUMEM() UMEMConfig { return UMEMConfig{Frames: 4096, FrameSize: 2048} }

// MaxFrames bounds the frames of a UMEM.
const MaxFrames = 1 << 20

// kernelHeadroom is XDP_PACKET_HEADROOM.
const kernelHeadroom = 256

// Validate reports every fault at once.
func (c UMEMConfig) Validate() error {
	var errs []error
	if c.Frames < 1 || c.Frames > MaxFrames {
		errs = append(errs, fmt.Errorf("frames %d: want 1 to %d", c.Frames, MaxFrames))
	}
	if c.FrameSize != 2048 && c.FrameSize != 4096 || c.FrameSize > os.Getpagesize() {
		errs = append(errs, fmt.Errorf("frame size %d: want 2048 or 4096, at most a page", c.FrameSize))
	}
	if c.Headroom < 0 || c.Headroom >= c.FrameSize-kernelHeadroom {
		errs = append(errs, fmt.Errorf("headroom %d: want 0 to below frame size - %d", c.Headroom, kernelHeadroom))
	}
	return errors.Join(errs...)
}

// Config says which queue a socket is bound to and how. Sockets that share a
// UMEM share what the first of them was opened with: its mode, NeedWakeup and
// MultiBuffer. Asking a later one for something else is an error, unless it is
// opened apart.
type Config struct {
	Ifindex int
	Queue   uint32

	// Ring sizes, powers of two. RxSize or TxSize may be 0 for a socket that
	// only sends or only receives; the other two are always needed. An
	// empty fill ring drops silently: make it at least as large as rx.
	RxSize, TxSize, FillSize, CompletionSize uint32

	// Mode is what is asked for; Socket.Mode is what came of it.
	Mode Mode
	// NeedWakeup lets a zero-copy driver sleep until Kick or Wake
	// (XDP_USE_NEED_WAKEUP). It costs copy mode nothing.
	NeedWakeup bool
	// MultiBuffer takes packets larger than a frame as chains of
	// descriptors (XDP_USE_SG, Linux 6.6).
	MultiBuffer bool
	// Apart registers the memory once more, for this socket alone: so it may
	// differ from the others in its mode, and frames still go from one to the
	// other as they are. It counts against RLIMIT_MEMLOCK once more.
	Apart bool
	// TxBudget is how many packets the kernel sends in one Kick in copy mode
	// (XDP_MAX_TX_SKB_BUDGET); 0 leaves its default of 32. It is rounded
	// into the kernel's limits: 32 to TxSize. On kernels without the option
	// Socket.Config says 32.
	TxBudget int

	// BusyPollUs, if not 0, has system calls on this socket run the driver's
	// receive loop for up to as many microseconds, and the interrupts of
	// the queue deferred meanwhile (SO_PREFER_BUSY_POLL, Linux 5.11).
	BusyPollUs int
	// BusyPollBudget is the number of packets of such a turn; 0 stands for 64.
	BusyPollBudget int

	// BindTimeout bounds how long Open waits for a queue that is still being
	// given back by a closed socket (EBUSY, 10 to 45 ms on veth). 0 stands
	// for 2 s, a negative value for not at all.
	BindTimeout time.Duration
}

// Default returns a socket for one queue that receives and sends.
func Default(ifindex int, queue uint32) Config {
	return Config{
		Ifindex: ifindex, Queue: queue,
		RxSize: 2048, TxSize: 2048, FillSize: 2048, CompletionSize: 2048,
		NeedWakeup: true,
		TxBudget:   256,
	}
}

// The kernel's default and least XDP_MAX_TX_SKB_BUDGET (TX_BATCH_SIZE in
// net/xdp/xsk.c).
const minTxBudget = 32

const (
	defaultBindTimeout    = 2 * time.Second
	defaultBusyPollBudget = 64
	maxRingSize           = 1 << 20
)

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Ifindex <= 0 {
		fault("ifindex %d: want a positive one", c.Ifindex)
	}
	for _, r := range []struct {
		name string
		size uint32
		none bool
	}{
		{"rx", c.RxSize, true},
		{"tx", c.TxSize, true},
		{"fill", c.FillSize, false},
		{"completion", c.CompletionSize, false},
	} {
		if r.size == 0 && r.none {
			continue
		}
		if r.size == 0 || r.size&(r.size-1) != 0 || r.size > maxRingSize {
			fault("%s ring of %d: want a power of two up to %d", r.name, r.size, maxRingSize)
		}
	}
	if c.RxSize == 0 && c.TxSize == 0 {
		fault("neither an rx nor a tx ring")
	}
	if c.Mode > ZeroCopy {
		fault("mode %d: want auto, copy or zerocopy", c.Mode)
	}
	if c.TxBudget < 0 {
		fault("tx budget %d: want 0 or more", c.TxBudget)
	}
	if c.BusyPollUs < 0 || c.BusyPollBudget < 0 {
		fault("busy poll of %d µs and %d packets: want 0 or more", c.BusyPollUs, c.BusyPollBudget)
	}
	return errors.Join(errs...)
}

// settled fills in what 0 stands for.
func (c Config) settled() Config {
	if c.BindTimeout == 0 {
		c.BindTimeout = defaultBindTimeout
	}
	if c.BusyPollUs > 0 && c.BusyPollBudget == 0 {
		c.BusyPollBudget = defaultBusyPollBudget
	}
	if c.TxSize == 0 {
		c.TxBudget = 0
		return c
	}
	c.TxBudget = min(max(c.TxBudget, minTxBudget), max(int(c.TxSize), minTxBudget))
	return c
}
