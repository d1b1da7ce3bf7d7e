package netlab

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
)

// Pod is a namespace behind a veth pair of the host.
type Pod struct {
	key   string
	link  string
	addrs []netip.Addr
	ns    *Namespace

	mac net.HardwareAddr // of eth0, on a bridge
}

// Key returns "namespace/name".
func (p *Pod) Key() string { return p.key }

// Link returns the name of the host's end of the veth pair; the pod's end is
// eth0.
func (p *Pod) Link() string { return p.link }

// Addrs returns the pod's addresses; the caller must not change them.
func (p *Pod) Addrs() []netip.Addr { return p.addrs }

// Namespace returns the pod's network namespace.
func (p *Pod) Namespace() *Namespace { return p.ns }

// AddPod builds a pod. Its key must be unique, and so must its addresses.
func (n *Net) AddPod(key string, addrs []netip.Addr) (_ *Pod, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pods[key] != nil {
		return nil, fmt.Errorf("add pod %s: exists", key)
	}
	if err := n.claim(key, addrs); err != nil {
		return nil, fmt.Errorf("add pod %s: %w", key, err)
	}
	p := &Pod{key: key, link: linkName(key), addrs: slices.Clone(addrs)}
	defer func() {
		if err != nil {
			n.release(addrs)
			if p.ns != nil {
				err = errors.Join(err, p.ns.Close(), DeleteNamespace(p.ns.name))
			}
		}
	}()
	if p.ns, err = n.namespace(spaceName(key)); err != nil {
		return nil, err
	}
	if n.cfg.Shape == Bridge {
		err = n.plugBridged(p)
	} else {
		_, err = n.plugRouted(n.onHost, n.cfg.NodeAddrs, p.ns, p.link, p.addrs)
	}
	if err == nil {
		err = n.routeFromRouter(p.addrs)
	}
	if err != nil {
		return nil, fmt.Errorf("add pod %s: %w", key, err)
	}
	n.pods[key] = p
	return p, nil
}

// RemovePod takes a pod down.
func (n *Net) RemovePod(key string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.pods[key]
	if p == nil {
		return fmt.Errorf("remove pod %s: no such pod", key)
	}
	delete(n.pods, key)
	n.release(p.addrs)
	// The link goes first: the namespace may live on for as long as a process
	// or socket holds it.
	if n.cfg.Shape == Bridge {
		n.forgetNeighbour(p)
	}
	var errs []error
	if link, err := n.onHost.LinkByName(p.link); err != nil {
		errs = append(errs, fmt.Errorf("find link of %s: %w", key, err))
	} else {
		errs = append(errs, n.onHost.LinkDel(link))
	}
	errs = append(errs, n.unrouteFromRouter(p.addrs), p.ns.Close(), DeleteNamespace(p.ns.name))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove pod %s: %w", key, err)
	}
	return nil
}

// claim books addresses for an owner, all or none.
func (n *Net) claim(owner string, addrs []netip.Addr) error {
	seen := map[netip.Addr]bool{}
	for _, a := range addrs {
		if err := CheckAddr(a); err != nil {
			return err
		}
		if other := n.owner[a]; other != "" {
			return fmt.Errorf("address %v belongs to %s", a, other)
		}
		if seen[a] {
			return fmt.Errorf("address %v given twice", a)
		}
		seen[a] = true
	}
	for _, a := range addrs {
		n.owner[a] = owner
	}
	return nil
}

func (n *Net) release(addrs []netip.Addr) {
	for _, a := range addrs {
		delete(n.owner, a)
	}
}

// linkName fits the kernel's 15 bytes whatever the key.
func linkName(key string) string {
	return fmt.Sprintf("veth%08x", hash(key))
}

// spaceName is readable, and unique also where a long key must be cut. A slash
// becomes a dot, which names of Kubernetes namespaces don't contain.
func spaceName(key string) string {
	b := []byte(key)
	for i, c := range b {
		if c == '/' || c == ':' {
			b[i] = '.'
			break
		}
	}
	const maxLen = 190 // a file name has 255 bytes at most
	if len(b) > maxLen {
		return fmt.Sprintf("%s-%08x", b[:maxLen], hash(key))
	}
	return string(b)
}

func hash(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}
