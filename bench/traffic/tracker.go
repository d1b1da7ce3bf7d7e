package traffic

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Tracker is a Sink that reads the stamps of a Blast: it counts packets of its
// epoch, finds the highest number, counts those that came after a higher one,
// and puts the time since each was due into a histogram. All of it is a tcx
// program at the link's ingress, in which nothing can be lost and no reader can
// be late. Packets of its epoch that have no number are dropped unseen; others pass.
type Tracker struct {
	state, times *ebpf.Map
	link         link.Link
}

// trackState is the value of the state's map, one a CPU.
type trackState struct {
	Received uint64
	Next     uint64 // one more than the highest number
	Late     uint64 // came after a higher one
}

// Track is what a Tracker has seen.
type Track struct {
	Received uint64
	Next     uint64
	Late     uint64
	Latency  *Histogram
}

// NewTracker attaches a tracker of packets over IPv4 or IPv6 (family 4 or 6) to a
// link of the calling thread's namespace.
func NewTracker(ifindex, family int, epoch uint16) (_ *Tracker, err error) {
	t := &Tracker{}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	prog, err := t.load(family, epoch)
	if err != nil {
		return nil, err
	}
	defer prog.Close()
	t.link, err = link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return nil, fmt.Errorf("attach tracker to link %d: %w", ifindex, err)
	}
	return t, nil
}

// TrackerCost is what a Tracker takes for such a packet of the load, alone: what it
// can take in a second is no limit of a system as long as it is far more.
func TrackerCost(l *Load) (_ time.Duration, err error) {
	if len(l.Frames) == 0 || udpAt(l.Frames[0]) == 0 {
		return 0, errors.New("measure tracker: no frame of UDP")
	}
	const epoch = 1
	frame := slices.Clone(l.Frames[0])
	udp, family := udpAt(frame), 4
	if udp > ethLen+ip4Len {
		family = 6
	}
	if len(frame) < udp+udpLen+stampLen {
		return 0, errors.New("measure tracker: the frame has no room for a stamp")
	}
	stamp(frame, udp, epoch, 0, 0)
	t := &Tracker{}
	defer func() { err = errors.Join(err, t.Close()) }()
	prog, err := t.load(family, epoch)
	if err != nil {
		return 0, err
	}
	defer prog.Close()
	const times = 1 << 15
	_, each, err := prog.Benchmark(frame, times, nil)
	if err != nil {
		return 0, fmt.Errorf("measure tracker: %w", err)
	}
	// A run that a signal interrupts is begun again.
	if st, err := t.read(); err != nil || st.Received < times {
		return 0, errors.Join(fmt.Errorf("measure tracker: it saw %d of %d packets", st.Received, times), err)
	}
	return each, nil
}

// load makes maps and program.
func (t *Tracker) load(family int, epoch uint16) (_ *ebpf.Program, err error) {
	if t.state, err = ebpf.NewMap(&ebpf.MapSpec{Name: "bench_track", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 24, MaxEntries: 1}); err != nil {
		return nil, fmt.Errorf("create state of tracker: %w", err)
	}
	if t.times, err = ebpf.NewMap(&ebpf.MapSpec{Name: "bench_times", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: numBuckets}); err != nil {
		return nil, fmt.Errorf("create histogram of tracker: %w", err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bench_tracker", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "GPL",
		Instructions: t.code(family, epoch),
	})
	if err != nil {
		return nil, fmt.Errorf("load tracker: %w", err)
	}
	return prog, nil
}

// code is the program. R6 is the packet, R7 its number, R8 the time since it
// was due, R9 the state.
func (t *Tracker) code(family int, epoch uint16) asm.Instructions {
	protocol, proto, at := hostOrder(unix.ETH_P_IP), int32(protoInV4), int32(ethLen+ip4Len+udpLen)
	if family == 6 {
		protocol, proto, at = hostOrder(unix.ETH_P_IPV6), protoInV6, ethLen+ip6Len+udpLen
	}
	// Where the stamp is in a frame, in 32-bit words of network order.
	atEpoch, atNumber, atTime := at, at+2, at+10
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R0, asm.R6, skbProtocol, asm.Word),
		asm.JNE.Imm(asm.R0, int32(protocol), "next"),
		asm.LoadMem(asm.R0, asm.R6, 0, asm.Word), // __sk_buff.len
		asm.JLT.Imm(asm.R0, at+stampLen, "next"),
		asm.LoadAbs(proto, asm.Byte),
		asm.JNE.Imm(asm.R0, unix.IPPROTO_UDP, "next"),
		asm.LoadAbs(atEpoch, asm.Half),
		asm.JNE.Imm(asm.R0, int32(epoch), "next"),
		asm.LoadAbs(atNumber, asm.Word),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.LSh.Imm(asm.R7, 32),
		asm.LoadAbs(atNumber+4, asm.Word),
		asm.Or.Reg(asm.R7, asm.R0),
		asm.JSLT.Imm(asm.R7, 0, "drop"), // unnumbered
		asm.LoadAbs(atTime, asm.Word),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.LSh.Imm(asm.R8, 32),
		asm.LoadAbs(atTime+4, asm.Word),
		asm.Or.Reg(asm.R8, asm.R0),
		asm.FnKtimeGetNs.Call(),
		asm.JGE.Reg(asm.R0, asm.R8, "past"),
		asm.Mov.Reg(asm.R8, asm.R0), // ahead of its time: as if in time
		asm.Sub.Reg(asm.R0, asm.R8).WithSymbol("past"),
		asm.Mov.Reg(asm.R8, asm.R0),
	}
	code = append(code, lookUpZero(t.state.FD())...)
	code = append(code,
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.Mov.Reg(asm.R9, asm.R0),
		asm.LoadMem(asm.R1, asm.R9, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R9, 0, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R9, 8, asm.DWord),
		asm.JGE.Reg(asm.R7, asm.R1, "higher"),
		asm.LoadMem(asm.R1, asm.R9, 16, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R9, 16, asm.R1, asm.DWord),
		asm.Ja.Label("bucket"),
		asm.Add.Imm(asm.R7, 1).WithSymbol("higher"),
		asm.StoreMem(asm.R9, 8, asm.R7, asm.DWord),
	)
	// The bucket of R8 is that of bucketOf: shift<<subBits + v>>shift, where
	// the shift brings the value below 2<<subBits.
	code = append(code, asm.Mov.Imm(asm.R7, 0).WithSymbol("bucket"), asm.Mov.Reg(asm.R1, asm.R8))
	for step := int32(32); step > 0; step /= 2 {
		label := fmt.Sprintf("below%d", step)
		code = append(code,
			asm.Mov.Reg(asm.R2, asm.R1),
			asm.RSh.Imm(asm.R2, step+subBits),
			asm.JEq.Imm(asm.R2, 0, label),
			asm.RSh.Imm(asm.R1, step),
			asm.Add.Imm(asm.R7, step),
			asm.Mov.Reg(asm.R2, asm.R1).WithSymbol(label),
		)
	}
	return append(code,
		asm.LSh.Imm(asm.R7, subBits),
		asm.Add.Reg(asm.R7, asm.R1),
		asm.StoreMem(asm.RFP, -4, asm.R7, asm.Word),
		asm.LoadMapPtr(asm.R1, t.times.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, tcxDrop).WithSymbol("drop"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, tcxNext).WithSymbol("next"),
		asm.Return(),
	)
}

// lookUpZero looks entry 0 of a map up.
func lookUpZero(fd int) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, fd),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
	}
}

// Received is how many packets of the epoch have come so far.
func (t *Tracker) Received() (uint64, error) {
	st, err := t.read()
	return st.Received, err
}

func (t *Tracker) read() (sum trackState, err error) {
	var perCPU []trackState
	if err := t.state.Lookup(uint32(0), &perCPU); err != nil {
		return sum, fmt.Errorf("read tracker: %w", err)
	}
	for _, st := range perCPU {
		sum.Received += st.Received
		sum.Late += st.Late
		sum.Next = max(sum.Next, st.Next)
	}
	return sum, nil
}

// Track returns what has been seen so far.
func (t *Tracker) Track() (Track, error) {
	st, err := t.read()
	if err != nil {
		return Track{}, err
	}
	r := Track{st.Received, st.Next, st.Late, &Histogram{}}
	var bucket uint32
	var perCPU []uint64
	entries := t.times.Iterate()
	for entries.Next(&bucket, &perCPU) {
		for _, n := range perCPU {
			r.Latency.add(int(bucket), n)
		}
	}
	if err := entries.Err(); err != nil {
		return r, fmt.Errorf("read histogram of tracker: %w", err)
	}
	return r, nil
}

// Close detaches the tracker.
func (t *Tracker) Close() error {
	var errs []error
	if t.link != nil {
		errs = append(errs, t.link.Close())
	}
	for _, m := range []*ebpf.Map{t.state, t.times} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
