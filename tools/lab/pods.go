package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control/source/manifest"
)

// pod is a pod of a lab that is up, with its servers.
type pod struct {
	spec     podSpec
	ns       *netlab.Namespace
	link     string
	external *netlab.External // of a pod in another node's network
	serves   map[Port][]service
}

func (p *pod) describe() Pod {
	ns, name, _ := strings.Cut(p.spec.key, "/")
	return Pod{
		Namespace: ns, Name: name, Addresses: p.spec.addrs, Netns: p.ns.Name(), Link: p.link,
		Ports: p.spec.ports, HostNetwork: p.spec.hostNetwork, Ready: p.spec.ready,
	}
}

func comparePods(a, b Pod) int {
	return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
}

// apply makes the lab what the manifests say: pods that went or moved first, so
// that their addresses are free, then the new ones, then the agent's copy of
// the manifests. It goes on after an error.
func (l *Lab) apply(ctx context.Context, m *manifests, specs []podSpec) error {
	specs, given := l.pool.fill(specs)
	var errs []error
	wanted := map[string]podSpec{}
	for _, s := range specs {
		wanted[s.key] = s
	}
	for key, p := range l.pods {
		if s, ok := wanted[key]; !ok || !sameNetwork(s, p.spec) {
			errs = append(errs, l.removePod(p))
		}
	}
	for _, s := range specs {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p := l.pods[s.key]
		if p == nil {
			var err error
			if p, err = l.addPod(s); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, l.reservePorts(p, s))
		p.spec = s
	}
	l.changes = changes{node: l.nodeName, given: given}
	errs = append(errs, l.copyManifests(m))
	return errors.Join(errs...)
}

// copyManifests makes the agent's copy what the manifests are now.
func (l *Lab) copyManifests(m *manifests) error {
	l.sum = m.sum
	err := l.mirror.write(m, &l.changes)
	digest, digestErr := manifest.Digest(l.mirror.dir)
	l.digest = digest
	return errors.Join(err, digestErr)
}

func sameNetwork(a, b podSpec) bool {
	return a.hostNetwork == b.hostNetwork && (!a.hostNetwork || a.nodeName == b.nodeName) && slices.Equal(a.addrs, b.addrs)
}

func (l *Lab) addPod(s podSpec) (*pod, error) {
	p := &pod{spec: s, serves: map[Port][]service{}}
	switch {
	case s.elsewhere(l.nodeName):
		e := l.net.External(s.addrs[0])
		if e == nil {
			var err error
			if e, err = l.net.AddExternal(s.addrs...); err != nil {
				return nil, fmt.Errorf("add pod %s: %w", s.key, err)
			}
		} else if !slices.Equal(e.Addrs(), s.addrs) {
			return nil, fmt.Errorf("add pod %s: its node has the addresses %v", s.key, e.Addrs())
		}
		l.shared[e]++
		p.ns, p.external = e.Namespace(), e
	case s.hostNetwork:
		p.ns = l.net.Host()
		for i, a := range s.addrs {
			if err := l.net.AddHostAddr(a); err != nil {
				for _, added := range s.addrs[:i] {
					err = errors.Join(err, l.net.RemoveHostAddr(added))
				}
				return nil, fmt.Errorf("add pod %s: %w", s.key, err)
			}
		}
	default:
		made, err := l.net.AddPod(s.key, s.addrs)
		if err != nil {
			return nil, err
		}
		p.ns, p.link = made.Namespace(), made.Link()
	}
	l.pods[s.key] = p
	return p, nil
}

func (l *Lab) removePod(p *pod) error {
	delete(l.pods, p.spec.key)
	errs := []error{l.stopServing(p, nil)}
	switch {
	case p.external != nil:
		if l.shared[p.external]--; l.shared[p.external] == 0 {
			delete(l.shared, p.external)
			errs = append(errs, l.net.RemoveExternal(p.external))
		}
	case p.spec.hostNetwork:
		for _, a := range p.spec.addrs {
			errs = append(errs, l.net.RemoveHostAddr(a))
		}
	default:
		errs = append(errs, l.net.RemovePod(p.spec.key))
	}
	return errors.Join(errs...)
}

// reservePorts makes the pod serve the ports of s and no others.
func (l *Lab) reservePorts(p *pod, s podSpec) error {
	errs := []error{l.stopServing(p, s.ports)}
	for _, port := range s.ports {
		errs = append(errs, l.servePort(p, port))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("serve pod %s: %w", s.key, err)
	}
	return nil
}

// servePort serves a port at all addresses of a pod, if it isn't served yet.
func (l *Lab) servePort(p *pod, port Port) error {
	if p.serves[port] != nil {
		return nil
	}
	addrs := p.spec.addrs
	if !p.spec.hostNetwork { // where the loopback is the pod's own
		addrs = append(slices.Clip(addrs), netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback())
	}
	for _, a := range addrs {
		at, err := l.servers.open(p.ns, a, port, l.initArrived)
		if err != nil {
			return err
		}
		p.serves[port] = append(p.serves[port], at)
	}
	return nil
}

// initArrived tells the probe that waits for the INIT, if one does.
func (l *Lab) initArrived(in netlab.SCTPInit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.inits[in.Tag]; c != nil {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// stopServing ends what the pod serves but the ports of keep.
func (l *Lab) stopServing(p *pod, keep []Port) error {
	var errs []error
	for port, list := range p.serves {
		if slices.Contains(keep, port) {
			continue
		}
		for _, at := range list {
			errs = append(errs, l.servers.release(at))
		}
		delete(p.serves, port)
	}
	return errors.Join(errs...)
}
