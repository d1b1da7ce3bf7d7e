package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// hostOrder is a 16-bit number of the wire as a program finds it in a register.
func hostOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// XDP verdicts (include/uapi/linux/bpf.h).
const xdpDrop = 1

// XDPDrop counts and drops all frames of a link in native XDP.
type XDPDrop struct {
	counter
	link link.Link
}

// NewXDPDrop attaches to a link of the calling thread's namespace.
func NewXDPDrop(ifindex int) (*XDPDrop, error) {
	d := &XDPDrop{}
	if err := d.counter.open(); err != nil {
		return nil, err
	}
	var err error
	d.link, err = attachXDP(ifindex, append(d.counter.add(), asm.Mov.Imm(asm.R0, xdpDrop), asm.Return()))
	if err != nil {
		return nil, errors.Join(err, d.counter.close())
	}
	return d, nil
}

// Close detaches the program.
func (d *XDPDrop) Close() error { return errors.Join(d.link.Close(), d.counter.close()) }

// NewXDPRedirect redirects all frames of a link to another one of the same
// namespace, the calling thread's, in native XDP.
func NewXDPRedirect(from, to int) (link.Link, error) {
	return attachXDP(from, redirectTo(to))
}

func redirectTo(ifindex int) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(ifindex)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
	}
}

func loadXDP(code asm.Instructions) (*ebpf.Program, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "bench_xdp", Type: ebpf.XDP, License: "GPL", Instructions: code})
	if err != nil {
		return nil, fmt.Errorf("load XDP program: %w", err)
	}
	return prog, nil
}

func attachXDP(ifindex int, code asm.Instructions) (link.Link, error) {
	prog, err := loadXDP(code)
	if err != nil {
		return nil, err
	}
	defer prog.Close()
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: link.XDPDriverMode})
	if err != nil {
		return nil, fmt.Errorf("attach XDP to link %d: %w", ifindex, err)
	}
	return l, nil
}

// RawFlood is one frame, repeated as fast as the kernel can make copies of it
// and put them into a link (BPF_PROG_TEST_RUN with live frames): no socket and
// no skb, for the limits of XDP alone. The link's peer must run XDP.
type RawFlood struct {
	Client  End
	Ifindex int // in the client's namespace
	Frame   []byte
}

// rawRepeat is how many frames one system call makes: half a second's, because
// each call spends some 30 ms on setting its page pool up and down.
const rawRepeat = 1 << 21

// Start starts a flood that lasts until Stop.
func (f RawFlood) Start(ctx context.Context) (*Flooding, error) {
	prog, err := loadXDP(redirectTo(f.Ifindex))
	if err != nil {
		return nil, err
	}
	g := &Flooding{crew: newCrew(ctx), done: make(chan struct{})}
	g.crew.hire(f.Client, "raw flood", func() error {
		defer prog.Close()
		opts := ebpf.RunOptions{
			Data: f.Frame, Repeat: rawRepeat, Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, BatchSize: batchSize,
		}
		for !g.crew.stopped() {
			if _, err := prog.Run(&opts); err != nil {
				return fmt.Errorf("run live frames: %w", err)
			}
			g.sent.Add(rawRepeat)
		}
		return nil
	})
	return g, nil
}
