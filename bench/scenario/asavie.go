package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"time"

	"github.com/asavie/xdp"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/bench/traffic"
)

// asavie is a plain forwarder on github.com/asavie/xdp, in the way of that
// library's l2fwd example: a socket on each of the pods' host-side links, one
// loop that polls both, copies each frame to the other socket and rewrites its
// destination MAC. It looks at nothing and enforces nothing.
func asavie(name, about string, frames int) System {
	return System{
		Name: name, About: about, Open: true,
		Start: func(ctx context.Context, s *Stage) (Running, error) { return startAsavie(s, frames) },
	}
}

// ForwarderCommand is the command of the binary that runs RunForwarder with
// the arguments that follow.
var ForwarderCommand = []string{"bench", "forwarder"}

type forwarder struct {
	process *process
	frames  int
}

func startAsavie(s *Stage, frames int) (Running, error) {
	args := append([]string{}, ForwarderCommand...)
	for _, p := range []*netlab.Pod{s.A, s.B} {
		// XDP sees frames before their checksums are filled in.
		ns := p.Namespace()
		if err := ns.Do(func() error { return traffic.TxChecksum.Set("eth0", false) }); err != nil {
			return nil, err
		}
		_, mac, err := linkIndex(ns, "eth0")
		if err != nil {
			return nil, err
		}
		args = append(args, p.Link(), mac.String())
	}
	p, err := startProcess(s, append(args, strconv.Itoa(frames))...)
	if err != nil {
		return nil, err
	}
	f := &forwarder{process: p, frames: frames}
	select {
	case <-p.done:
		return nil, fmt.Errorf("forwarder ended: %w\n%s", p.err, s.tail())
	case <-time.After(300 * time.Millisecond): // the probe says whether it works
		return f, nil
	}
}

// Modes implements Running.
func (f *forwarder) Modes() map[string]string {
	return map[string]string{"xsk": "copy", "frames": strconv.Itoa(max(f.frames, xdp.DefaultSocketOptions.NumFrames)), "loop": fmt.Sprintf("on CPU %d", loopCPU()), "pods": "tx-checksum off, no TSO"}
}

// Stop implements Running.
func (f *forwarder) Stop() error { return f.process.stop() }

// port is a socket on one link and the pod behind it.
type port struct {
	sock *xdp.Socket
	mac  net.HardwareAddr
	stop func()
}

// RunForwarder forwards between two links until ctx ends. Its arguments are
// link and MAC of the one pod, of the other pod, and the number of frames of
// each socket.
func RunForwarder(ctx context.Context, args []string) (err error) {
	if len(args) != 5 {
		return fmt.Errorf("forwarder: %d arguments: want LINK MAC LINK MAC FRAMES", len(args))
	}
	frames, err := strconv.Atoi(args[4])
	if err != nil {
		return fmt.Errorf("forwarder: frames: %w", err)
	}
	runtime.LockOSThread()
	var cpu unix.CPUSet
	cpu.Set(loopCPU())
	if err := unix.SchedSetaffinity(0, &cpu); err != nil {
		return fmt.Errorf("forwarder: run on CPU %d: %w", loopCPU(), err)
	}
	xdp.DefaultXdpFlags = unix.XDP_FLAGS_DRV_MODE // generic XDP would copy each frame once more
	var ports [2]*port
	for i := range ports {
		if ports[i], err = openPort(args[2*i], args[2*i+1], frames); err != nil {
			return err
		}
		defer ports[i].stop()
	}
	fds := make([]unix.PollFd, len(ports))
	for ctx.Err() == nil {
		for i, p := range ports {
			p.sock.Fill(p.sock.GetDescs(p.sock.NumFreeFillSlots()))
			fds[i] = unix.PollFd{Fd: int32(p.sock.FD()), Events: unix.POLLIN}
			if p.sock.NumTransmitted() > 0 {
				fds[i].Events |= unix.POLLOUT
			}
		}
		if _, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("forwarder: poll: %w", err)
		}
		for i, p := range ports {
			if fds[i].Revents&unix.POLLIN != 0 {
				p.forward(ports[1-i])
			}
			p.sock.Complete(p.sock.NumCompleted())
		}
	}
	return nil
}

// xdpMaxTxSKBBudget is XDP_MAX_TX_SKB_BUDGET (include/uapi/linux/if_xdp.h): how
// many packets a system call may send in copy mode, 32 by default.
const xdpMaxTxSKBBudget = 9

func openPort(link, mac string, frames int) (*port, error) {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return nil, fmt.Errorf("forwarder: %w", err)
	}
	ifi, err := net.InterfaceByName(link)
	if err != nil {
		return nil, fmt.Errorf("forwarder: find link %s: %w", link, err)
	}
	prog, err := xdp.NewProgram(1)
	if err != nil {
		return nil, fmt.Errorf("forwarder: load program: %w", err)
	}
	if err := prog.Attach(ifi.Index); err != nil {
		return nil, fmt.Errorf("forwarder: attach to %s: %w", link, err)
	}
	opts := xdp.DefaultSocketOptions
	tuned := frames > opts.NumFrames
	if tuned {
		half := frames / 2
		opts = xdp.SocketOptions{
			NumFrames: frames, FrameSize: 2048,
			FillRingNumDescs: half, CompletionRingNumDescs: half, RxRingNumDescs: half, TxRingNumDescs: half,
		}
	}
	sock, err := xdp.NewSocket(ifi.Index, 0, &opts)
	if err == nil && tuned {
		err = unix.SetsockoptInt(sock.FD(), unix.SOL_XDP, xdpMaxTxSKBBudget, opts.TxRingNumDescs)
		if errors.Is(err, unix.ENOPROTOOPT) {
			err = nil // a kernel before 6.17: 32 packets a system call it is
		}
	}
	if err == nil {
		err = prog.Register(0, sock.FD())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("forwarder: open socket on %s: %w", link, err), prog.Detach(ifi.Index))
	}
	// The program goes with the namespace; the links are taken down next.
	stop := func() { _, _ = sock.Close(), prog.Detach(ifi.Index) }
	return &port{sock: sock, mac: hw, stop: stop}, nil
}

// forward sends all that p has received out of another port.
func (p *port) forward(out *port) {
	in := p.sock.Receive(p.sock.NumReceived())
	to := out.sock.GetDescs(min(len(in), out.sock.NumFreeTxSlots()))
	for i := range to {
		frame := out.sock.GetFrame(to[i])
		n := copy(frame, p.sock.GetFrame(in[i]))
		copy(frame, out.mac)
		to[i].Len = uint32(n)
	}
	out.sock.Transmit(to)
}
