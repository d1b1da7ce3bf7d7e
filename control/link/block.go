package link

import (
	"errors"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/xdpprog"
)

// Block closes a pod's link until an agent attaches it: both directions drop
// every frame, whether any agent runs or not. A link that an agent attached
// stays as it is. pinPath is the agent's.
func Block(pinPath string, ifindex int) error {
	w, err := xdpprog.NewWall()
	if err != nil {
		return err
	}
	defer w.Close()
	err = w.Block(pinPath, ifindex)
	if !errors.Is(err, xdpprog.ErrNoTCX) {
		return err
	}
	for _, p := range []xdpprog.Point{xdpprog.PodIngress, xdpprog.PodEgress} {
		if filtered(p, ifindex) {
			continue
		}
		if err := (Filters{}).Attach(p, ifindex, w.FD()); err != nil {
			return err
		}
	}
	return nil
}

// Guarded reports whether both directions of a link carry programs of an agent
// or of Block.
func Guarded(pinPath string, ifindex int) (bool, error) {
	if filtered(xdpprog.PodIngress, ifindex) && filtered(xdpprog.PodEgress, ifindex) {
		return true, nil
	}
	return xdpprog.Guarded(pinPath, ifindex)
}

// filtered reports whether a point of a link has a filter of Sluice.
func filtered(p xdpprog.Point, ifindex int) bool {
	want := filter(p, ifindex)
	l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	filters, err := netlink.FilterList(l, want.Parent)
	if err != nil {
		return false
	}
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Handle == want.Handle && b.Name == want.Name {
			return true
		}
	}
	return false
}

// CanBlock reports why Block would not work, if it would not.
func CanBlock(pinPath string) error {
	w, err := xdpprog.NewWall()
	if err != nil {
		return err
	}
	return errors.Join(xdpprog.CheckPinPath(pinPath), w.Close())
}

// SweepPins takes away what Block and agents left of links that have gone. That
// it can't is no harm: the next agent or plugin tries again.
func SweepPins(pinPath string) { _ = xdpprog.SweepPins(pinPath) }
