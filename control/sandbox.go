package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// AddSandbox implements api.Sandboxes. The sandbox's link is closed when the
// agent has taken the request in; policy is in force on it when AddSandbox
// returns. It may be repeated.
func (a *Agent) AddSandbox(ctx context.Context, s api.Sandbox) (api.Endpoint, error) {
	var none api.Endpoint
	found, err := lookAt(&s)
	if err != nil {
		return none, fmt.Errorf("%w: %w", api.ErrBadSandbox, err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.Timeout())
	defer cancel()
	// In this order: what is attached is looked after.
	if err := a.sandboxes.add(s); err != nil {
		return none, err
	}
	if err := a.closed(&s, found); err != nil {
		return none, err
	}
	a.told(&s, found)
	a.Kick()
	for {
		turned := a.sandboxes.nextTurn()
		e, why := a.served(&s)
		if why == "" {
			a.log.Info("sandbox enforced", "pod", e.Namespace+"/"+e.Pod, "iface", s.Link, "took", time.Since(began))
			return e, nil
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return none, fmt.Errorf("%w: %s", api.ErrNotInForce, why)
		}
	}
}

// lookAt checks what a plugin says against the link.
func lookAt(s *api.Sandbox) (link.Found, error) {
	if err := checkAttachment(s.Attachment); err != nil {
		return link.Found{}, err
	}
	if len(s.Addresses) == 0 {
		return link.Found{}, errors.New("no addresses")
	}
	if len(s.Addresses) > maxAddrs {
		return link.Found{}, fmt.Errorf("%d addresses: want at most %d", len(s.Addresses), maxAddrs)
	}
	if s.Pod != "" && s.Namespace == "" {
		return link.Found{}, fmt.Errorf("pod %s: no namespace", s.Pod)
	}
	mac, err := net.ParseMAC(s.MAC)
	if err != nil || len(mac) != len(endpoint.MAC{}) {
		return link.Found{}, fmt.Errorf("MAC address %q: want six bytes", s.MAC)
	}
	l, err := link.ByIndex(s.Ifindex, s.Link, endpoint.MAC(mac))
	return link.Found{Link: l, LinkLocal: s.LinkLocal}, err
}

// closed attaches a link that no pod is known for: it carries nothing until the
// loop does so for a pod.
func (a *Agent) closed(s *api.Sandbox, found link.Found) error {
	for _, ep := range a.plane.Endpoints() {
		if ep.Link.Ifindex == found.Link.Ifindex && ep.Link.MAC == found.Link.MAC && sameName(ep, s) {
			return nil // told before
		}
	}
	_, err := a.plane.Attach(endpoint.Endpoint{
		Namespace: s.Namespace, Name: s.Pod, UID: s.UID,
		Addrs: s.Addresses, LinkLocal: found.LinkLocal, Link: found.Link,
	})
	return err
}

func sameName(ep endpoint.Endpoint, s *api.Sandbox) bool {
	return s.Pod == "" || ep.Namespace == s.Namespace && ep.Name == s.Pod && (s.UID == "" || ep.UID == s.UID)
}

// told makes the finder and the store know what a sandbox says.
func (a *Agent) told(s *api.Sandbox, found link.Found) {
	a.finder.Tell(tellerOf(s.Attachment), s.Addresses, found)
	if s.Pod == "" {
		return
	}
	a.store.Update(func(tx *store.Tx) {
		tx.SetLocal(podOf(s), store.Local{UID: s.UID, Addrs: s.Addresses})
	})
}

// untold makes the store forget what the sandboxes of a pod said, if none is left.
// One that comes is listed before the store knows of it: whoever asks in a
// transaction doesn't take away what it has said.
func (a *Agent) untold(pod store.Key) {
	a.store.Update(func(tx *store.Tx) {
		if !a.sandboxes.has(pod) {
			tx.DeleteLocal(pod)
		}
	})
}

func podOf(s *api.Sandbox) store.Key { return store.Key{Namespace: s.Namespace, Name: s.Pod} }

// served returns the endpoint that a sandbox's pod is, or why policy is not in
// force on it.
func (a *Agent) served(s *api.Sandbox) (api.Endpoint, string) {
	pod, own := a.podOfSandbox(s)
	switch {
	case pod == nil && s.Pod == "":
		return api.Endpoint{}, fmt.Sprintf("no pod has the addresses %v", s.Addresses)
	case pod == nil:
		return api.Endpoint{}, fmt.Sprintf("pod %s is not known yet", podOf(s))
	case !own:
		return api.Endpoint{}, fmt.Sprintf("pod %s with the UID %s is not known yet", podOf(s), s.UID)
	case !overlap(pod.Addrs(), s.Addresses):
		return api.Endpoint{}, fmt.Sprintf("pod %s has the addresses %v", pod.Key(), pod.Addrs())
	}
	for _, ep := range a.plane.Endpoints() {
		if ep.Link.Ifindex != s.Ifindex || ep.Namespace != pod.Namespace || ep.Name != pod.Name || ep.UID != pod.UID {
			continue
		}
		if gen := a.plane.Generation(ep.ID); gen != 0 && slices.Equal(ep.Addrs, pod.Addrs()) {
			return api.Endpoint{
				ID: uint32(ep.ID), Namespace: ep.Namespace, Pod: ep.Name, Addresses: ep.Addrs,
				Link: ep.Link.Name, MAC: net.HardwareAddr(ep.Link.MAC[:]).String(), Generation: gen, State: "enforced",
			}, ""
		}
	}
	return api.Endpoint{}, fmt.Sprintf("rules of pod %s are not published yet", pod.Key())
}

// podOfSandbox returns the pod that a sandbox belongs to; own is false if it is
// an earlier one of the same name. A pod that has no addresses but the sandbox's
// is the sandbox's, whatever its UID: static pods have another one in the API.
func (a *Agent) podOfSandbox(s *api.Sandbox) (pod *store.Pod, own bool) {
	a.store.Read(func(v store.View) {
		if s.Pod != "" {
			if pod = v.Pod(podOf(s)); pod != nil {
				own = s.UID == "" || pod.UID == "" || s.UID == pod.UID || v.HasLocal(podOf(s))
			}
			return
		}
		for _, addr := range s.Addresses {
			for _, p := range v.PodsAt(addr) {
				if !p.HostNetwork {
					pod, own = p, true
				}
			}
		}
	})
	return pod, own
}

func overlap(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(x netip.Addr) bool { return slices.Contains(b, x) })
}

// CheckSandbox implements api.Sandboxes.
func (a *Agent) CheckSandbox(_ context.Context, s api.Sandbox) (api.Endpoint, error) {
	if _, err := lookAt(&s); err != nil {
		return api.Endpoint{}, fmt.Errorf("%w: %w", api.ErrBadSandbox, err)
	}
	e, why := a.served(&s)
	if why != "" {
		return e, fmt.Errorf("%w: %s", api.ErrNotInForce, why)
	}
	return e, nil
}

// DeleteSandbox implements api.Sandboxes. The link stays closed to all that
// policy forbids until it is gone.
func (a *Agent) DeleteSandbox(_ context.Context, at api.Attachment) error {
	if err := checkAttachment(at); err != nil {
		return fmt.Errorf("%w: %w", api.ErrBadSandbox, err)
	}
	a.sandboxes.leave(at)
	a.Kick()
	return nil
}

// KeepSandboxes implements api.Sandboxes: all others are about to go.
func (a *Agent) KeepSandboxes(_ context.Context, valid []api.Attachment) error {
	for _, s := range a.sandboxes.list() {
		if !slices.Contains(valid, s.Attachment) {
			a.sandboxes.leave(s.Attachment)
		}
	}
	a.Kick()
	return nil
}

// recallSandboxes takes up what an earlier agent was told.
func (a *Agent) recallSandboxes() {
	for _, s := range a.sandboxes.load() {
		found, err := lookAt(&s.Sandbox)
		if err != nil {
			a.sandboxes.remove(&s.Sandbox) // its link has gone meanwhile
			continue
		}
		a.told(&s.Sandbox, found)
	}
}

// sandboxSweep is how often all sandboxes are looked after, beside those that
// were said to leave.
const sandboxSweep = 30 * time.Second

// sweepSandboxes forgets the sandboxes whose links have gone. The loop calls it
// after each turn.
func (a *Agent) sweepSandboxes() {
	defer a.sandboxes.turned()
	a.sweepCut()
	list, gone := a.sandboxes.due(sandboxSweep)
	for _, s := range list {
		if a.links.Exists(s.Ifindex, s.Link) || !a.sandboxes.remove(&s.Sandbox) {
			continue
		}
		gone = true
		a.finder.Forget(tellerOf(s.Attachment), s.Ifindex)
		if s.Pod != "" {
			a.untold(podOf(&s.Sandbox))
		}
	}
	if gone {
		a.sweepEndpoints()
	}
}

// sweepEndpoints detaches those that no pod was known for and whose links have gone.
func (a *Agent) sweepEndpoints() {
	for _, ep := range a.plane.Endpoints() {
		if a.serves(ep.Link.Ifindex) || a.links.Exists(ep.Link.Ifindex, ep.Link.Name) {
			continue
		}
		if err := a.plane.Detach(ep.ID); err != nil {
			a.log.Warn("detach sandbox", "iface", ep.Link.Name, "err", err)
		}
	}
}

// retire gives up the endpoint of a pod that has gone or has another link. A
// link that is still there may belong to a sandbox that is still up: it is cut
// off until it goes.
func (a *Agent) retire(ep endpoint.Endpoint, there bool) error {
	if !there {
		return a.plane.Detach(ep.ID)
	}
	a.cut[ep.Link.Ifindex] = ep.Link.Name
	return a.plane.Cut(ep.ID)
}

// sweepCut forgets links that were cut off and have gone since.
func (a *Agent) sweepCut() {
	for ifindex, name := range a.cut {
		if a.links.Exists(ifindex, name) {
			continue
		}
		delete(a.cut, ifindex)
		if err := a.plane.Uncut(ifindex); err != nil {
			a.log.Warn("forget link", "iface", name, "err", err)
		}
	}
}
