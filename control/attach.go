package control

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// serves reports whether a link is that of an attached pod.
func (a *Agent) serves(ifindex int) bool {
	for _, ep := range a.attached {
		if ep.Link.Ifindex == ifindex {
			return true
		}
	}
	return false
}

func compareKeys(a, b store.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// mine reports whether a pod is scheduled to this node, or to none.
func (a *Agent) mine(p *store.Pod) bool { return p.NodeName == "" || p.NodeName == a.cfg.NodeName }

// maxAddrs is how many addresses a pod may have. The kernel has room for eight a
// pod, of which two are link-local: no pod can take what others need.
const maxAddrs = 6

// attach attaches one pod if its link was found. If all is known, the link is
// guarded only once rules are published: a pod that was there before the agent
// is judged from the first packet on, and never cut off. Else it is isolated at
// once: it may take long until there are rules.
func (a *Agent) attach(pod *store.Pod, found map[netip.Addr]link.Found, synced bool) (did, ok bool, err error) {
	ep, attached := a.attached[pod.Key()]
	if attached && slices.Equal(ep.Addrs, pod.Addrs()) {
		return false, true, nil
	}
	hit, there := foundAt(pod, found)
	if !there || a.othersLink(pod, hit.Link.Ifindex) {
		return false, false, nil
	}
	if n := len(pod.Addrs()); n > maxAddrs {
		if !attached {
			did, err = a.isolate(pod, hit)
		}
		return did, false, errors.Join(err, fmt.Errorf("attach %s: metadata.annotations[sluice.dev/ips]: "+
			"the pod has %d addresses in all, want at most %d", pod.Key(), n, maxAddrs))
	}
	ep = endpointAt(pod, hit)
	var adopted bool
	if ep.ID, adopted, err = a.plane.Bind(ep); err != nil {
		return false, false, err
	}
	if synced && !adopted {
		a.unguarded = append(a.unguarded, pod.Key())
	} else if err = a.plane.Guard(ep.ID); err != nil {
		return false, false, err
	}
	a.attached[pod.Key()] = ep
	if a.recall.changed = true; hit.Inside != (link.End{}) {
		a.recall.found[pod.Key()] = hit
	} else {
		delete(a.recall.found, pod.Key())
	}
	a.log.Info("pod attached", "pod", ep.String(), "iface", ep.Link.Name, "endpoint", ep.ID)
	return true, true, nil
}

func endpointAt(pod *store.Pod, hit link.Found) endpoint.Endpoint {
	addrs := pod.Addrs()
	return endpoint.Endpoint{
		Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Addrs: addrs, Link: hit.Link,
		LinkLocal: hit.LinkLocal[:min(len(hit.LinkLocal), max(maxAddrs+1-len(addrs), 1))],
	}
}

// isolate guards the link of a pod whose addresses are not taken on. No rules are
// published for an endpoint that has none.
func (a *Agent) isolate(pod *store.Pod, hit link.Found) (did bool, err error) {
	ep := endpointAt(pod, hit)
	ep.Addrs = nil
	if ep.ID, err = a.plane.Attach(ep); err != nil {
		return false, err
	}
	a.attached[pod.Key()] = ep
	return true, nil
}

// guard guards the links of pods that were bound, and forgets those whose links
// have gone meanwhile. It returns the pods that are not attached for that reason.
func (a *Agent) guard() (failed []string, _ error) {
	var errs []error
	for _, key := range a.unguarded {
		ep, ok := a.attached[key]
		if !ok {
			continue
		}
		if err := a.plane.Guard(ep.ID); err != nil {
			delete(a.attached, key)
			a.unpublished = true
			failed, errs = append(failed, key.String()), append(errs, err)
		}
	}
	a.unguarded = nil
	return failed, errors.Join(errs...)
}

// othersLink reports whether a link is that of an attached pod which has other
// addresses. A pod that may configure its own network can take on any address,
// also one of a pod that has no link yet; it doesn't become that pod by it.
func (a *Agent) othersLink(pod *store.Pod, ifindex int) bool {
	for key, ep := range a.attached {
		if key != pod.Key() && ep.Link.Ifindex == ifindex && !overlap(ep.Addrs, pod.Addrs()) {
			return true
		}
	}
	return false
}
