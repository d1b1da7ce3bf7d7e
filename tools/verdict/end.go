package verdict

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
)

// End is one end of a connection: a pod, a Service, or an address that is no
// pod's.
type End struct {
	Name    string // as it was asked for
	Pod     *store.Pod
	Service *store.Service // if it was asked for by name
	Addrs   []netip.Addr   // at least one
}

// Pair is the addresses that two ends talk by.
type Pair struct{ Src, Dst netip.Addr }

// Judged reports whether the end is a pod with a network of its own, the only
// ones that policies are about.
func (e End) Judged() bool { return e.Pod != nil && !e.Pod.HostNetwork }

func (e End) query(a netip.Addr) resolve.End {
	q := resolve.End{Addr: a}
	if e.Pod != nil {
		q.Pod = e.Pod.Key()
	}
	return q
}

// End finds what a query calls NAMESPACE/POD, svc:NAMESPACE/NAME or ip:ADDRESS.
// An address that a pod has stands for the pod.
func (c *Cluster) End(name string) (e End, err error) {
	c.Read(func(v store.View) {
		if text, isAddr := strings.CutPrefix(name, "ip:"); isAddr {
			e, err = addrEnd(v, text)
		} else if svc, isService := strings.CutPrefix(name, svcPrefix); isService {
			e, err = svcEnd(v, svc)
		} else {
			e, err = podEnd(v, name)
		}
	})
	e.Name = name
	return e, err
}

// EndOf returns a pod as an end.
func (c *Cluster) EndOf(key store.Key) (End, error) { return c.End(key.String()) }

func podEnd(v store.View, name string) (End, error) {
	ns, pod, ok := strings.Cut(name, "/")
	if !ok || ns == "" || pod == "" || strings.Contains(pod, "/") {
		return End{}, fmt.Errorf("%q: want NAMESPACE/POD, svc:NAMESPACE/NAME or ip:ADDRESS", name)
	}
	p := v.Pod(store.Key{Namespace: ns, Name: pod})
	if p == nil {
		return End{}, fmt.Errorf("pod %s: not found", name)
	}
	if p.Phase == store.Finished {
		return End{}, fmt.Errorf("pod %s: has finished: its addresses are not its own any more", name)
	}
	addrs := p.Addrs()
	if len(addrs) == 0 && p.HostNetwork {
		addrs = nodeAddrs(v, p.NodeName)
	}
	if len(addrs) == 0 {
		return End{}, fmt.Errorf("pod %s: has no address: want status.podIPs", name)
	}
	var errs []error
	for _, a := range addrs {
		errs = append(errs, claimed(v, a))
	}
	return End{Pod: p, Addrs: addrs}, together(errs...)
}

func addrEnd(v store.View, text string) (End, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil || a.Zone() != "":
		return End{}, fmt.Errorf("ip:%s: must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)", text)
	case a.IsUnspecified() || a.Unmap().IsLoopback():
		return End{}, fmt.Errorf("ip:%s: never leaves its host", text)
	}
	a = a.Unmap()
	e := End{Addrs: []netip.Addr{a}}
	if at := v.PodsAt(a); len(at) > 0 {
		e.Pod = at[0]
	}
	return e, claimed(v, a)
}

// claimed returns an error if a packet's address doesn't tell whose it is: if
// two pods have it, or a pod and a node.
func claimed(v store.View, a netip.Addr) error {
	var own, host []string
	for _, p := range v.PodsAt(a) {
		if p.HostNetwork {
			host = append(host, "host-network pod "+p.Key().String())
		} else {
			own = append(own, "pod "+p.Key().String())
		}
	}
	if len(own) == 0 {
		return nil
	}
	for n := range v.Nodes() {
		if slices.Contains(n.Addrs, a) {
			host = append(host, "node "+n.Name)
		}
	}
	if len(own)+len(host) < 2 {
		return nil
	}
	slices.Sort(host)
	return fmt.Errorf("address %s is claimed by %s: a packet can't tell which", a, strings.Join(append(own, host...), ", "))
}

// errFamily is why two ends can't talk.
var errFamily = errors.New("src and dst have no IP family in common")

// Pairs returns the first addresses that two ends have in common a family of,
// for each family, the preferred one first: that of the source's first
// address that the destination can answer.
func Pairs(src, dst End) ([]Pair, error) {
	var out []Pair
	for _, x := range src.Addrs {
		if slices.ContainsFunc(out, func(p Pair) bool { return p.Src.Is4() == x.Is4() }) {
			continue
		}
		i := slices.IndexFunc(dst.Addrs, func(y netip.Addr) bool { return x.Is4() == y.Is4() })
		if i >= 0 {
			out = append(out, Pair{x, dst.Addrs[i]})
		}
	}
	if len(out) == 0 {
		return nil, errFamily
	}
	return out, nil
}

// together joins faults on one line; nil without any.
func together(errs ...error) error {
	var texts []string
	for _, err := range errs {
		if err != nil && !slices.Contains(texts, err.Error()) {
			texts = append(texts, err.Error())
		}
	}
	if texts == nil {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}
