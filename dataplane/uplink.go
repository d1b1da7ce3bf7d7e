package dataplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/xsk"
	"github.com/sluice-net/sluice/xdpprog"
)

// NIC is a link that can be an uplink.
type NIC struct {
	Name    string
	Ifindex int
	MAC     [6]byte
	MTU     int
	Queues  int // that receive
}

// UplinkState says what is made of a configured uplink.
type UplinkState string

const (
	UplinkOff     UplinkState = "off"     // refused, or not ready: all passes untouched
	UplinkOn      UplinkState = "on"      // denied flows are dropped in the driver
	UplinkStalled UplinkState = "stalled" // taken off: a worker takes no frames
)

// UplinkStats is the state of one uplink.
type UplinkStats struct {
	Name   string
	State  UplinkState
	Reason string // why it is not on
	Mode   string // how frames travel: zerocopy, copy, or mixed
	Note   string // why it is not zerocopy, in the driver's words
	Queues []UplinkQueueStats
}

// UplinkQueueStats is the state of one queue of an uplink.
type UplinkQueueStats struct {
	Queue, Worker int
	Mode          string // none, copy or zerocopy
	Packets       uint64 // that the worker took
	Lost          uint64 // that found no room, up to a second ago
}

// uplinkQueue is one queue of a NIC. The worker writes its state.
type uplinkQueue struct {
	nic     NIC
	queue   int
	at      int // its place among the sockets
	worker  int
	state   atomic.Pointer[queueState]
	packets atomic.Uint64
	lost    atomic.Uint64
}

type queueState struct {
	mode   xsk.Mode // Auto: not bound
	reason string   // why not, or why not in zero-copy mode
}

var errClosed = errors.New("socket closed")

func (q *uplinkQueue) failed(err error) { q.state.Store(&queueState{reason: whyNot(q.nic, err)}) }

func (q *uplinkQueue) bound(m xsk.Mode, refused error) {
	s := &queueState{mode: m}
	if refused != nil {
		s.reason = refused.Error()
	}
	q.state.Store(s)
}

// uplink is a configured uplink, as the goroutine of tendUplinks sees it.
type uplink struct {
	name     string
	nic      NIC
	queues   []*uplinkQueue
	state    UplinkState
	reason   string
	attached bool
	healthy  time.Time // since when, after a stall
}

// uplinks are all of them.
type uplinks struct {
	plan atomic.Pointer[[]*uplinkQueue] // what the workers are to serve
	mu   sync.Mutex                     // guards list against stats
	list []*uplink
}

// uplinkRest is how often uplinks are looked after.
const uplinkRest = 100 * time.Millisecond

// uplinkLook is every how many of these turns the NICs are looked at.
const uplinkLook = 5

// frameHeadroom is what the kernel keeps of a frame (XDP_PACKET_HEADROOM).
const frameHeadroom = 256

// uplinkTrust is for how many heartbeat timeouts the workers must be well before
// an uplink that was taken off is used again.
const uplinkTrust = 2

// whyNot puts in front of an error of a NIC what it means there, and what to do.
func whyNot(nic NIC, err error) string {
	means := ""
	switch {
	case errors.Is(err, unix.ENETDOWN):
		return fmt.Sprintf("the NIC is down: ip link set %s up", nic.Name)
	case errors.Is(err, unix.ENOSPC):
		means = fmt.Sprintf("the driver has too few queues for XDP, see ethtool -l %s: ", nic.Name)
	case errors.Is(err, unix.EOPNOTSUPP):
		means = "the driver has no XDP of its own, or not as the NIC is set up: "
	case errors.Is(err, unix.ERANGE):
		means = fmt.Sprintf("the driver has no XDP with an MTU of %d: ", nic.MTU)
	}
	return means + err.Error()
}

func validUplinks(names []string) error {
	var errs []error
	for i, n := range names {
		if n == "" || len(n) > 15 || strings.ContainsAny(n, "/ \t\n:") {
			errs = append(errs, fmt.Errorf("uplink %q: want the name of a link", n))
		}
		if slices.Contains(names[:i], n) {
			errs = append(errs, fmt.Errorf("uplink %q: named twice", n))
		}
	}
	return errors.Join(errs...)
}

// dropUplinks takes programs of an earlier agent off NICs that are no uplinks
// any more, and forgets NICs that have gone.
func (p *Plane) dropUplinks() error {
	pinned, err := p.objs.PinnedUplinks()
	errs := []error{err}
	if len(p.cfg.Uplinks) == 0 {
		for _, ifindex := range pinned {
			errs = append(errs, p.objs.DropUplink(ifindex), p.objs.Detach(xdpprog.UplinkXDP, ifindex))
		}
	}
	return errors.Join(errs...)
}

// planUplinks looks the NICs up, gives their queues to the workers, and takes
// what an earlier agent left off all other NICs.
func (p *Plane) planUplinks(ports Ports) {
	u := &p.uplinks
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.list == nil {
		for _, name := range p.cfg.Uplinks {
			u.list = append(u.list, &uplink{name: name, state: UplinkOff})
		}
	}
	var plan []*uplinkQueue
	changed := false
	for _, x := range u.list {
		nic, err := ports.NIC(x.name)
		if err == nil {
			err = p.fits(nic, len(plan))
		}
		if err != nil {
			x.off(p, UplinkOff, err.Error())
			changed = changed || x.queues != nil
			x.nic, x.queues = NIC{}, nil
			continue
		}
		if nic != x.nic || len(plan) > 0 && len(x.queues) > 0 && x.queues[0].at != len(plan) {
			x.start(p, nic)
			x.nic, x.queues, changed = nic, nil, true
			for i := range nic.Queues {
				x.queues = append(x.queues, &uplinkQueue{nic: nic, queue: i, at: len(plan) + i, worker: i % p.cfg.Workers})
			}
		}
		plan = append(plan, x.queues...)
	}
	if changed {
		u.plan.Store(&plan)
	}
}

// fits reports why a NIC's queues find no room behind those of others.
func (p *Plane) fits(nic NIC, before int) error {
	if before+nic.Queues > xdpprog.MaxUplinkSockets {
		return fmt.Errorf("%d queues: uplinks have room for %d in all", nic.Queues, xdpprog.MaxUplinkSockets)
	}
	perWorker := (before+nic.Queues)/p.cfg.Workers + 2
	if most := xsk.MaxFrames; p.cfg.Frames*(1+perWorker) > most {
		return fmt.Errorf("%d queues with %d frames each for %d workers: a worker has room for %d frames", nic.Queues, p.cfg.Frames, p.cfg.Workers, most)
	}
	return nil
}

// tendUplinks attaches the program to NICs whose queues are served, and takes it
// off while a worker does not take their frames. Between the two the program
// itself passes all, as soon as it sees no heartbeat.
func (p *Plane) tendUplinks(ctx context.Context, ports Ports) {
	tick := time.NewTicker(uplinkRest)
	defer tick.Stop()
	for turn := 1; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if turn%uplinkLook == 0 {
			p.planUplinks(ports)
			p.leaveOthers()
		}
		for _, x := range p.uplinks.list {
			p.tendUplink(x)
		}
	}
}

// leaveOthers takes an earlier agent's program off NICs that are not in the list.
func (p *Plane) leaveOthers() {
	pinned, err := p.objs.PinnedUplinks()
	if err != nil {
		return
	}
	for _, ifindex := range pinned {
		ours := slices.ContainsFunc(p.uplinks.list, func(x *uplink) bool { return x.nic.Ifindex == ifindex })
		if ours {
			continue
		}
		if err := errors.Join(p.objs.DropUplink(ifindex), p.objs.Detach(xdpprog.UplinkXDP, ifindex)); err != nil {
			p.log.Warn("take program off earlier uplink", "err", err)
		}
	}
}

func (p *Plane) tendUplink(x *uplink) {
	u := &p.uplinks
	u.mu.Lock()
	defer u.mu.Unlock()
	if x.queues == nil {
		return
	}
	if w := p.stalled(x); w != "" {
		x.healthy = time.Time{}
		if x.attached {
			x.off(p, UplinkStalled, w)
		}
		return
	}
	if x.state == UplinkStalled {
		if x.healthy.IsZero() {
			x.healthy = time.Now()
		}
		if time.Since(x.healthy) < uplinkTrust*p.cfg.HeartbeatTimeout {
			return
		}
	}
	if reason := x.unbound(); reason != "" {
		x.off(p, UplinkOff, reason)
		return
	}
	if !x.attached {
		x.on(p)
	}
}

// stalled names a worker that has queues of an uplink and takes no frames, once
// all of them have begun.
func (p *Plane) stalled(x *uplink) string {
	now, _ := p.clock.now()
	for _, q := range x.queues {
		beat := p.objs.LastBeat(q.worker)
		if age := time.Duration(now - beat); beat == 0 || age > p.cfg.HeartbeatTimeout {
			return fmt.Sprintf("worker %d has taken no frames for longer than %v", q.worker, p.cfg.HeartbeatTimeout)
		}
	}
	return ""
}

// unbound says which queue has no socket, and why.
func (x *uplink) unbound() string {
	for _, q := range x.queues {
		s := q.state.Load()
		if s == nil {
			return "binding its queues"
		}
		if s.mode == xsk.Auto {
			return fmt.Sprintf("queue %d: %s", q.queue, s.reason)
		}
	}
	return ""
}

// start makes a NIC the uplink's. A program that an earlier agent left there stays
// attached, as attaching has many a driver reset the NIC, and passes all.
func (x *uplink) start(p *Plane, nic NIC) {
	const reason = "binding its queues"
	if x.attached {
		x.off(p, UplinkOff, reason)
	}
	x.state, x.reason = UplinkOff, reason
	if err := p.objs.DropUplink(nic.Ifindex); err != nil {
		p.log.Warn("begin with uplink", "iface", x.name, "err", err)
	}
}

// on attaches the program.
func (x *uplink) on(p *Plane) {
	err := p.objs.NoteAsked()
	if err == nil {
		err = p.objs.PutUplink(x.nic.Ifindex, xdpprog.Uplink{
			Base: uint32(x.queues[0].at), Queues: uint32(len(x.queues)), Room: uint32(p.cfg.FrameSize - frameHeadroom), MAC: x.nic.MAC,
		})
	}
	if err == nil {
		err = p.attach(xdpprog.UplinkXDP, x.nic.Ifindex)
	}
	if err != nil {
		x.off(p, UplinkOff, whyNot(x.nic, err))
		return
	}
	x.attached, x.state, x.reason = true, UplinkOn, ""
	mode, note := x.mode()
	p.log.Info("uplink on", "iface", x.name, "queues", len(x.queues), "mode", mode, "note", note)
}

// off takes the program off, and says so once.
func (x *uplink) off(p *Plane, state UplinkState, reason string) {
	if x.attached {
		if err := errors.Join(p.objs.DropUplink(x.nic.Ifindex), p.objs.Detach(xdpprog.UplinkXDP, x.nic.Ifindex)); err != nil {
			p.log.Warn("take program off uplink", "iface", x.name, "err", err)
		}
	}
	if x.attached || x.reason != reason {
		p.log.Warn("uplink off: its traffic is judged at the pods' links", "iface", x.name, "state", string(state), "reason", reason)
	}
	x.attached, x.state, x.reason = false, state, reason
}

// mode sums up how the queues' frames travel.
func (x *uplink) mode() (mode, note string) {
	mode = "none"
	for i, q := range x.queues {
		s := q.state.Load()
		if s == nil {
			continue
		}
		m := modeName(s.mode)
		if i == 0 {
			mode = m
		} else if mode != m {
			mode = "mixed"
		}
		if s.reason != "" {
			note = s.reason
		}
	}
	return mode, note
}

func modeName(m xsk.Mode) string {
	if m == xsk.Auto {
		return "none"
	}
	return m.String()
}

func (u *uplinks) stats() []UplinkStats {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []UplinkStats
	for _, x := range u.list {
		s := UplinkStats{Name: x.name, State: x.state, Reason: x.reason}
		s.Mode, s.Note = x.mode()
		for _, q := range x.queues {
			mode := "none"
			if st := q.state.Load(); st != nil {
				mode = modeName(st.mode)
			}
			s.Queues = append(s.Queues, UplinkQueueStats{Queue: q.queue, Worker: q.worker, Mode: mode, Packets: q.packets.Load(), Lost: q.lost.Load()})
		}
		out = append(out, s)
	}
	return out
}
