package traffic

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Sink counts the packets of one protocol that enter a link, and drops them
// there: a tcx program at ingress, before the namespace's stack. It is cheaper than any
// socket, so that it is not the limit, and it sees packets however they reach
// the link.
type Sink struct {
	counter
	link link.Link
}

// __sk_buff.protocol (include/uapi/linux/bpf.h), offsets of the L4 protocol in
// a frame.
const (
	skbProtocol = 16
	ethLen      = 14
	protoInV4   = ethLen + 9
	protoInV6   = ethLen + 6
)

// TCX verdicts (include/uapi/linux/bpf.h).
const (
	tcxNext = -1
	tcxDrop = 2
)

// NewSink attaches a sink of an IP protocol to a link of the calling thread's
// namespace.
func NewSink(ifindex int, proto uint8) (*Sink, error) {
	s := &Sink{}
	if err := s.counter.open(); err != nil {
		return nil, err
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bench_sink", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "GPL",
		Instructions: append(append(asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMem(asm.R7, asm.R6, skbProtocol, asm.Word),
			asm.JEq.Imm(asm.R7, int32(hostOrder(unix.ETH_P_IP)), "v4"),
			asm.JEq.Imm(asm.R7, int32(hostOrder(unix.ETH_P_IPV6)), "v6"),
			asm.Ja.Label("next"),
			asm.LoadAbs(protoInV4, asm.Byte).WithSymbol("v4"),
			asm.Ja.Label("proto"),
			asm.LoadAbs(protoInV6, asm.Byte).WithSymbol("v6"),
			asm.JNE.Imm(asm.R0, int32(proto), "next").WithSymbol("proto"),
		}, s.counter.add()...),
			asm.Mov.Imm(asm.R0, tcxDrop),
			asm.Return(),
			asm.Mov.Imm(asm.R0, tcxNext).WithSymbol("next"),
			asm.Return(),
		),
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load sink: %w", err), s.counter.close())
	}
	defer prog.Close()
	s.link, err = link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach sink to link %d: %w", ifindex, err), s.counter.close())
	}
	return s, nil
}

// Close detaches the sink.
func (s *Sink) Close() error { return errors.Join(s.link.Close(), s.counter.close()) }

// counter is one number that a program counts up on each CPU.
type counter struct{ m *ebpf.Map }

func (c *counter) open() (err error) {
	c.m, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "bench_count", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1,
	})
	if err != nil {
		return fmt.Errorf("create counter: %w", err)
	}
	return nil
}

func (c *counter) close() error { return c.m.Close() }

// add counts one up, or leaves at "counted". It uses R0 to R5 and the stack.
func (c *counter) add() asm.Instructions {
	return append(lookUpZero(c.m.FD()),
		asm.JEq.Imm(asm.R0, 0, "counted"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("counted"),
	)
}

// Received is how many packets have been counted so far.
func (c *counter) Received() (uint64, error) {
	var perCPU []uint64
	if err := c.m.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read counter: %w", err)
	}
	var sum uint64
	for _, n := range perCPU {
		sum += n
	}
	return sum, nil
}
