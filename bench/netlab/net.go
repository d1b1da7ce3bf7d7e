// Package netlab builds a small Kubernetes-like node out of network
// namespaces: a host namespace that forwards, pods behind veth pairs, and
// external hosts behind the host's uplink. It needs root and nothing else: no
// address, route or setting of the machine itself is used or changed.
//
//	pod A ─ eth0 ══ vethA ─┐                                  ┌─ vethX ══ eth0 ─ external X
//	                       ├─ host (uplink) ══ (node) router ─┤
//	pod B ─ eth0 ══ vethB ─┘                                  └─ vethY ══ eth0 ─ external Y
//
// Pods hang off the host either routed (each its own /32 and /128 with a
// link-local gateway) or on one Linux bridge. All methods of Net may be called
// from any goroutine; building a pod takes a few milliseconds. The package
// starts no process and keeps no file besides the namespaces' names.
package netlab

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Shape is how pods are connected to the host.
type Shape string

const (
	Routed Shape = "routed" // own /32 and /128, the host routes to each link
	Bridge Shape = "bridge" // all on the bridge cni0, on-link to each other
)

// Config describes a Net.
type Config struct {
	// Name tells the namespaces of several Nets apart: see Prefix.
	Name  string
	Shape Shape
	// MTU of all links, bytes.
	MTU int
	// Queues is the number of transmit and receive queues of pods' links.
	Queues int
	// Cable, if not empty, names two NICs of the caller's namespace that make
	// the cable between host and router, instead of a veth pair: the host's
	// first. They return when the Net is closed.
	Cable []string
	// Bond, if not empty, names the members of a bond that is the host's end of
	// the cable: one is in use at a time. Their other ends are called after them,
	// with a p behind, and are ports of a bridge of the router.
	Bond []string
	// NodeAddrs are the host's own addresses; the first of each family is what
	// the host speaks to its pods from.
	NodeAddrs []netip.Addr
}

// Default returns a routed Net with addresses of the node out of the ranges
// for benchmarks (RFC 2544, RFC 5180), which nothing else should use.
func Default(name string) Config {
	return Config{
		Name: name, Shape: Routed, MTU: 1500, Queues: 1,
		NodeAddrs: []netip.Addr{netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("2001:2::1")},
	}
}

var nameRE = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

const maxNameLen = 32

// CheckName reports whether a Net can have this name.
func CheckName(name string) error {
	if len(name) > maxNameLen || !nameRE.MatchString(name) {
		return fmt.Errorf("name %q: want at most %d of a-z, 0-9 and single inner hyphens", name, maxNameLen)
	}
	return nil
}

// Validate reports every fault of the configuration.
func (c *Config) Validate() error {
	errs := []error{CheckName(c.Name)}
	if c.Shape != Routed && c.Shape != Bridge {
		errs = append(errs, fmt.Errorf("shape %q: want %s or %s", c.Shape, Routed, Bridge))
	}
	if c.MTU < 1280 || c.MTU > 65535 {
		errs = append(errs, fmt.Errorf("MTU %d: want 1280 to 65535", c.MTU))
	}
	if c.Queues < 1 || c.Queues > 64 {
		errs = append(errs, fmt.Errorf("queues %d: want 1 to 64", c.Queues))
	}
	if len(c.Cable) != 0 && len(c.Cable) != 2 {
		errs = append(errs, fmt.Errorf("cable of %d NICs: want 2 or none", len(c.Cable)))
	}
	if len(c.Bond) > 0 && len(c.Cable) > 0 {
		errs = append(errs, errors.New("cable and bond: want one of them or none"))
	}
	for _, a := range c.NodeAddrs {
		errs = append(errs, CheckAddr(a))
	}
	return errors.Join(errs...)
}

// CheckAddr reports whether a pod, a host or the node can have this address.
func CheckAddr(a netip.Addr) error {
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Zone() != "" || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("address %v: not a unicast address", a)
	case a.Is4In6():
		return fmt.Errorf("address %v: an IPv4 address in IPv6 clothes", a)
	case a.Is6() && a.IsLinkLocalUnicast():
		return fmt.Errorf("address %v: link-local", a)
	case a == gateway4 || a == router4:
		return fmt.Errorf("address %v: used by the lab itself", a)
	}
	return nil
}

// Prefix is what the names of all namespaces of a Net begin with. No other
// Net's names begin with it: a name has no double hyphen.
func Prefix(name string) string { return "sluice-" + name + "--" }

// Net is a node with its pods, and the world around it.
type Net struct {
	cfg          Config
	host, router *Namespace

	mu        sync.Mutex
	onHost    *netlink.Handle // route socket in host
	onRouter  *netlink.Handle
	pods      map[string]*Pod
	externals map[netip.Addr]*External
	hostAddrs map[netip.Addr]int // users of each address of the host
	prefixes  map[netip.Prefix]bool
	owner     map[netip.Addr]string
}

// New builds the host, its uplink and the router behind it. The caller must
// Close the Net, also if it made New return an error: nothing is left behind.
func New(cfg Config) (_ *Net, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Net{
		cfg:  cfg,
		pods: map[string]*Pod{}, externals: map[netip.Addr]*External{},
		hostAddrs: map[netip.Addr]int{}, prefixes: map[netip.Prefix]bool{}, owner: map[netip.Addr]string{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.host, n.onHost, err = n.forwarder("host"); err != nil {
		return nil, err
	}
	if n.router, n.onRouter, err = n.forwarder("router"); err != nil {
		return nil, err
	}
	if err := n.addUplink(); err != nil {
		return nil, fmt.Errorf("add uplink: %w", err)
	}
	if cfg.Shape == Bridge {
		if err := n.addBridge(); err != nil {
			return nil, fmt.Errorf("add bridge: %w", err)
		}
	}
	for _, a := range cfg.NodeAddrs {
		if err := n.AddHostAddr(a); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *Net) forwarder(role string) (*Namespace, *netlink.Handle, error) {
	ns, err := n.namespace(role)
	if err != nil {
		return nil, nil, err
	}
	if err := ns.setSysctls(forwarding...); err != nil {
		return ns, nil, err
	}
	h, err := netlink.NewHandleAt(ns.fd, unix.NETLINK_ROUTE)
	if err != nil {
		return ns, nil, fmt.Errorf("open route socket in %s: %w", ns.name, err)
	}
	return ns, h, nil
}

func (n *Net) namespace(role string) (*Namespace, error) {
	ns, err := CreateNamespace(Prefix(n.cfg.Name) + role)
	if err != nil {
		return nil, err
	}
	if err := ns.setSysctls(quiet...); err != nil {
		return nil, errors.Join(err, ns.Close(), DeleteNamespace(ns.name))
	}
	return ns, nil
}

// Config returns what the Net was built with.
func (n *Net) Config() Config { return n.cfg }

// Router returns the namespace of the router beyond the uplink.
func (n *Net) Router() *Namespace { return n.router }

// Host returns the node's namespace.
func (n *Net) Host() *Namespace { return n.host }

// Pods lists the pods by key.
func (n *Net) Pods() []*Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	pods := make([]*Pod, 0, len(n.pods))
	for _, key := range slices.Sorted(maps.Keys(n.pods)) {
		pods = append(pods, n.pods[key])
	}
	return pods
}

// Owner returns the key of the pod, "host", or "ip:" and the address of the
// external host that has the address, or "".
func (n *Net) Owner(a netip.Addr) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.owner[a]
}

// Close takes all of the Net down. Sockets that were opened in it must be
// closed by those who opened them, or they keep their namespace alive.
func (n *Net) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range []*netlink.Handle{n.onHost, n.onRouter} {
		if h != nil {
			h.Close()
		}
	}
	n.onHost, n.onRouter = nil, nil
	spaces := []*Namespace{n.host, n.router}
	for _, p := range n.pods {
		spaces = append(spaces, p.ns)
	}
	for a, e := range n.externals {
		if a == e.addrs[0] {
			spaces = append(spaces, e.ns)
		}
	}
	var errs []error
	for _, ns := range spaces {
		if ns != nil && ns.fd.IsOpen() {
			errs = append(errs, ns.Close())
		}
	}
	clear(n.pods)
	clear(n.externals)
	return errors.Join(append(errs, Sweep(n.cfg.Name))...)
}

// Sweep deletes all namespaces of the Net of that name, whoever made them.
func Sweep(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	names, err := Namespaces(Prefix(name))
	errs := []error{err}
	for _, ns := range names {
		errs = append(errs, DeleteNamespace(ns))
	}
	return errors.Join(errs...)
}
