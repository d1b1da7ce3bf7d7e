package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Cable is two interfaces of this machine, and whatever is between them: a
// cable, a switch, or another machine that forwards from the one to the other.
type Cable struct {
	TX, RX string
	// ToMAC is where frames go to: by default, to RX itself.
	ToMAC net.HardwareAddr
	// From and To are the packets' addresses; whatever forwards them must know
	// the way.
	From, To netip.Addr
}

// DefaultCable has addresses that RFC 2544 sets aside.
func DefaultCable() Cable {
	return Cable{From: netip.MustParseAddr("198.18.0.2"), To: netip.MustParseAddr("198.19.0.2")}
}

// Validate reports every fault at once.
func (c *Cable) Validate() error {
	var errs []error
	if c.TX == "" || c.RX == "" {
		errs = append(errs, errors.New("both an interface to send by and one to receive by are needed"))
	}
	for _, name := range []string{c.TX, c.RX} {
		if name == "" {
			continue
		}
		i, err := net.InterfaceByName(name)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("interface %s: %w", name, err))
		case i.Flags&net.FlagUp == 0:
			errs = append(errs, fmt.Errorf("interface %s: is down", name))
		case len(i.HardwareAddr) != 6:
			errs = append(errs, fmt.Errorf("interface %s: is no Ethernet", name))
		}
	}
	if !c.From.Is4() || !c.To.Is4() {
		errs = append(errs, fmt.Errorf("from %v to %v: want addresses of IPv4", c.From, c.To))
	}
	if c.ToMAC != nil && len(c.ToMAC) != 6 {
		errs = append(errs, fmt.Errorf("MAC %v: want 6 bytes", c.ToMAC))
	}
	return errors.Join(errs...)
}

func (c *Cable) wire() (w wire, err error) {
	tx, err1 := net.InterfaceByName(c.TX)
	rx, err2 := net.InterfaceByName(c.RX)
	if err := errors.Join(err1, err2); err != nil {
		return w, fmt.Errorf("find interfaces: %w", err)
	}
	w.inside = func(f func() error) error { return f() }
	w.out.Space, w.in.Space = here{}, here{}
	w.in.CPU = anyCPU
	w.outIndex, w.fromMAC, w.toMAC = tx.Index, tx.HardwareAddr, c.ToMAC
	w.inIndex, w.backMAC, w.viaMAC = rx.Index, rx.HardwareAddr, tx.HardwareAddr
	if w.toMAC == nil {
		w.toMAC = rx.HardwareAddr
	}
	return w, nil
}

// here is the namespace that this process is in anyway.
type here struct{}

func (here) Enter() error { return nil }

// wired is whatever is between two interfaces.
var wired = System{
	Name: "wire", About: "whatever is between the two interfaces", Open: true, Blind: true,
	Start: func(_ context.Context, s *Stage) (Running, error) {
		return idleWith{map[string]string{"tx": s.cable.TX, "rx": s.cable.RX}}, nil
	},
}

type idleWith struct{ modes map[string]string }

func (i idleWith) Modes() map[string]string { return i.modes }
func (i idleWith) Stop() error              { return nil }
