package xdpprog

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// ErrNoTCX says that the kernel (before 6.6) has no tcx links: attach
// FilterFD's programs as clsact filters instead.
var ErrNoTCX = errors.New("kernel has no tcx links")

// Point is a place where a program is attached.
type Point uint8

const (
	PodIngress  Point = iota // host-side link of a pod, frames from the pod
	PodEgress                // host-side link of a pod, frames to the pod
	PortIngress              // kernel's end of a steering port
	PortXDP                  // worker's end of a steering port
	UplinkXDP                // NIC of the node
	PodXDP                   // host-side link of a pod, ahead of PodIngress; only without offload
)

var pointNames = [...]string{"pod-ingress", "pod-egress", "port-ingress", "port-xdp", "uplink-xdp", "pod-xdp"}

// XDP reports whether the point is one of XDP programs, which need no tcx.
func (p Point) XDP() bool { return p == PortXDP || p == UplinkXDP || p == PodXDP }

// String returns the name that pins carry.
func (p Point) String() string { return pointNames[p] }

func (o *Objects) program(p Point) *ebpf.Program {
	switch p {
	case PodIngress:
		return o.progs.DivertFromPod
	case PodEgress:
		return o.progs.DivertToPod
	case PortIngress:
		return o.progs.Deliver
	case UplinkXDP:
		return o.progs.UplinkSteer
	case PodXDP:
		return o.progs.SteerPod
	}
	return o.progs.Steer
}

// Attach attaches the program of a point to a link, or puts the new program in
// place of the one that an earlier agent left pinned there, atomically.
func (o *Objects) Attach(p Point, ifindex int) error {
	pin := o.pin(p, ifindex)
	if old, err := link.LoadPinnedLink(pin, nil); err == nil {
		err := o.update(old, p, ifindex)
		if errors.Join(err, old.Close()) == nil {
			return nil
		}
		if err := os.Remove(pin); err != nil {
			return fmt.Errorf("remove stale pin of %s on link %d: %w", p, ifindex, err)
		}
	}
	l, err := o.attach(p, ifindex)
	if err != nil {
		return fmt.Errorf("attach %s to link %d: %w", p, ifindex, err)
	}
	if err := l.Pin(pin); err != nil {
		return errors.Join(fmt.Errorf("pin %s of link %d: %w", p, ifindex, err), l.Close())
	}
	return l.Close() // the pin holds it
}

// Attached reports whether a link has the program of a point that this agent or an
// earlier one pinned. Then it is the network device that it was: the program does
// not outlive it, and one that was made since, with the index, has none.
func (o *Objects) Attached(p Point, ifindex int) bool {
	l, err := link.LoadPinnedLink(o.pin(p, ifindex), nil)
	if err != nil {
		return false
	}
	defer l.Close()
	return attachedTo(l, p, ifindex) == nil
}

// update fails if the pinned link outlived its network device: the index may
// belong to another one by now.
func (o *Objects) update(l link.Link, p Point, ifindex int) error {
	if err := attachedTo(l, p, ifindex); err != nil {
		return err
	}
	return l.Update(o.program(p))
}

func attachedTo(l link.Link, p Point, ifindex int) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	got := 0
	if p.XDP() {
		if x := info.XDP(); x != nil {
			got = int(x.Ifindex)
		}
	} else if t := info.TCX(); t != nil {
		got = int(t.Ifindex)
	}
	if got != ifindex {
		return fmt.Errorf("pinned link is attached to %d, not %d", got, ifindex)
	}
	return nil
}

func (o *Objects) attach(p Point, ifindex int) (link.Link, error) {
	if p.XDP() {
		return link.AttachXDP(link.XDPOptions{Program: o.program(p), Interface: ifindex, Flags: link.XDPDriverMode})
	}
	at := ebpf.AttachTCXIngress
	if p == PodEgress {
		at = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: o.program(p), Attach: at})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return nil, ErrNoTCX
	}
	return l, err
}

// Detach removes the program of a point from a link, if it is there.
func (o *Objects) Detach(p Point, ifindex int) error {
	if err := os.Remove(o.pin(p, ifindex)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("detach %s from link %d: %w", p, ifindex, err)
	}
	return nil
}

// FilterFD is the descriptor of the program of a point, for clsact filters.
func (o *Objects) FilterFD(p Point) int { return o.program(p).FD() }

func (o *Objects) pin(p Point, ifindex int) string {
	return pinOf(o.cfg.PinPath, p, ifindex)
}
