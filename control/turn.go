package control

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// input is what a publish depended on.
type input struct {
	store     uint64 // generation
	endpoints uint64 // changes of the attached endpoints
	hostAddrs []netip.Addr
}

// turn brings the dataplane in step with the store and the links. It reports
// whether pods are to be attached yet.
func (a *Agent) turn() (pending bool, _ error) {
	a.turning.Store(max(int64(time.Since(a.started)), 1))
	defer a.turning.Store(0)
	state := a.source.State()
	var err error
	missing := a.missing
	if moved := a.followPods(); moved || a.relook {
		var changed bool
		missing, changed, err = a.reconcile(a.wanted, state.Synced)
		a.unpublished = a.unpublished || changed
		a.missing, a.relook = missing, err != nil
	}
	inForce := false
	if state.Synced { // whatever could not be attached: rules of all others don't wait for it
		e := a.publish(a.unpublished)
		if inForce = e == nil; inForce {
			a.unpublished = false
			if len(a.recall.unproven) > 0 {
				a.Kick() // nobody waits for the search any more
			}
			a.remember()
		} else {
			a.services.suspect.Store(true) // so that the next turn makes up for it
		}
		err = errors.Join(err, e)
	}
	if failed, e := a.guard(); e != nil {
		missing = slices.Concat(missing, failed)
		err, a.missing, a.relook = errors.Join(err, e), missing, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.pending, a.status.err = missing, err
	if err != nil {
		a.status.failures++
	}
	if inForce {
		a.status.digest = state.Digest
		a.status.ready = true
		giveBack()
		a.status.store = a.lastInput.store
	}
	return len(missing) > 0, err
}

// followPods brings wanted up to date. It reports whether pods that may have a link
// here have come, gone or may have another.
func (a *Agent) followPods() (moved bool) {
	a.store.Read(func(v store.View) {
		changes, ok := v.Since(a.looked)
		a.looked = v.Generation()
		if !ok || a.wanted == nil {
			a.wanted, moved = make(map[store.Key]*store.Pod), true
			for p := range v.Pods() {
				a.want(p.Key(), p)
			}
			return
		}
		for i := range changes {
			key := changes[i].Pod
			if key == (store.Key{}) {
				continue
			}
			was := a.wanted[key]
			a.want(key, v.Pod(key))
			moved = moved || !samePlace(was, a.wanted[key])
		}
	})
	return moved
}

// samePlace reports whether two pods, nil if there is none, have the same link.
func samePlace(p, q *store.Pod) bool {
	if p == nil || q == nil {
		return p == q
	}
	return p.UID == q.UID && p.NodeName == q.NodeName && slices.Equal(p.Addrs(), q.Addrs())
}

// want notes whether a pod, nil if it is gone, may have a link on this node.
func (a *Agent) want(key store.Key, p *store.Pod) {
	// A cluster says which node each pod is on; a folder of manifests may know
	// this node by another name.
	if p != nil && !p.HostNetwork && len(p.Addrs()) > 0 && (a.cfg.Kubeconfig == "" || a.mine(p)) {
		a.wanted[key] = p
	} else {
		delete(a.wanted, key)
	}
}

// reconcile attaches pods whose links are there and detaches those whose pod
// or link has gone. It returns the pods of this node that are not attached yet.
func (a *Agent) reconcile(wanted map[store.Key]*store.Pod, synced bool) (missing []string, changed bool, err error) {
	var errs []error
	var replaced []endpoint.Endpoint
	maps.DeleteFunc(a.recall.unproven, func(key store.Key, _ struct{}) bool { return wanted[key] == nil })
	bound := a.bound()
	for key, ep := range a.attached {
		pod := wanted[key]
		there := a.links.Exists(ep.Link.Ifindex, ep.Link.Name)
		same := bound[ep.Link.Ifindex] == ep.ID // else its slot may be another pod's by now
		if pod != nil && pod.UID == ep.UID && there && same {
			continue
		}
		delete(a.attached, key)
		changed, a.recall.changed = true, true
		if !same {
			continue
		}
		if pod != nil && there {
			// Its successor may have the same link, which must not be without
			// programs for a moment.
			replaced = append(replaced, ep)
			continue
		}
		errs = append(errs, a.retire(ep, there))
		a.log.Info("pod detached", "pod", key.String(), "iface", ep.Link.Name)
	}
	var look []netip.Addr
	unfound := false // a link of a pod of this node
	for key, pod := range wanted {
		_, unproven := a.recall.unproven[key]
		if ep, ok := a.attached[key]; !ok || !slices.Equal(ep.Addrs, pod.Addrs()) || unproven && a.published != nil {
			look = append(look, pod.Addrs()[:min(len(pod.Addrs()), maxAddrs)]...)
		}
	}
	if len(look) > 0 {
		found, searched, err := a.find(look, synced, len(replaced) == 0)
		errs = append(errs, err)
		if searched && a.published != nil {
			replaced = append(replaced, a.prove(found)...)
		}
		for _, key := range slices.SortedFunc(maps.Keys(wanted), compareKeys) {
			if !synced && a.source.State().Synced {
				// From now on links are guarded once there are rules for them.
				a.Kick()
				break
			}
			did, ok, err := a.attach(wanted[key], found, synced)
			changed = changed || did
			errs = append(errs, err)
			if err == nil && !ok && a.mine(wanted[key]) {
				unfound = true
			}
			if err != nil || !ok && a.mine(wanted[key]) {
				missing = append(missing, key.String())
			}
		}
	}
	for _, ep := range replaced {
		if !a.serves(ep.Link.Ifindex) {
			errs = append(errs, a.retire(ep, true))
		}
	}
	if !a.pruned && synced && !unfound && len(a.recall.unproven) == 0 {
		a.pruned = true
		errs = append(errs, a.plane.Prune())
	}
	return missing, changed, errors.Join(errs...)
}

// bound returns which endpoint each link is. One that a plugin tells of is bound
// anew, closed, if what it says of the pod is not what the API says.
func (a *Agent) bound() map[int]endpoint.ID {
	ids := make(map[int]endpoint.ID, len(a.attached))
	if len(a.attached) > 0 {
		for _, ep := range a.plane.Endpoints() {
			ids[ep.Link.Ifindex] = ep.ID
		}
	}
	return ids
}

// find finds the links of pods. To look for those that nobody has told of takes
// long, with many sandboxes. If it can, it does without where others wait for their
// rules: pods that a plugin has told of, or an earlier agent's. The next turn then
// makes up for it. For the same reason a search ends when the source is synced.
func (a *Agent) find(look []netip.Addr, synced, canWait bool) (found map[netip.Addr]link.Found, searched bool, err error) {
	found, rest := a.finder.Told(look)
	recollected, err := a.recollect(found)
	if err != nil {
		return found, false, err
	}
	rest = slices.DeleteFunc(rest, func(x netip.Addr) bool { _, ok := found[x]; return ok })
	waiting := len(found) > 0 || synced && a.unpublished && len(a.attached) > 0
	if waiting && len(rest) > 0 && canWait && !a.postponed {
		a.postponed = true
		a.Kick()
		return found, false, nil
	}
	a.postponed = false
	enough := func() bool { return !synced && a.source.State().Synced }
	searched, err = a.finder.Search(rest, found, enough)
	if !searched && err == nil {
		a.Kick()
	}
	return found, searched && !recollected, err
}

// publish compiles and publishes if something that matters has changed.
func (a *Agent) publish(endpointsChanged bool) error {
	host := a.hostAddrs()
	a.takeNames()
	now := input{store: a.store.Generation(), endpoints: a.lastInput.endpoints, hostAddrs: host}
	if endpointsChanged {
		now.endpoints++
	}
	if a.published != nil && now.store == a.lastInput.store && now.endpoints == a.lastInput.endpoints &&
		slices.Equal(now.hostAddrs, a.lastInput.hostAddrs) &&
		len(a.lookups.heard) == 0 && a.publisher.Table() == a.published && !a.services.suspect.Load() {
		a.namesPublished()
		return nil
	}
	level := slog.LevelInfo
	if a.published != nil && now.store == a.lastInput.store && !endpointsChanged {
		level = slog.LevelDebug // an answer, of which there are many
	}
	eps := slices.SortedFunc(maps.Values(a.attached), func(a, b endpoint.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	eps = slices.DeleteFunc(eps, func(ep endpoint.Endpoint) bool { return len(ep.Addrs) == 0 })
	var table *classify.Table
	var since time.Time // the first change that this follows
	var err error
	a.store.Read(func(v store.View) {
		now.store = v.Generation()
		if changes, ok := v.Since(a.lastInput.store); ok && len(changes) > 0 {
			since = changes[0].At
		}
		a.readServices(v, host)
		if err = a.teach(v, endpointsChanged); err != nil {
			return
		}
		table, err = a.publisher.Next(compile.Input{View: v, Endpoints: eps, Node: a.cfg.NodeName, NodeAddrs: host,
			Domains: a.lookups.domains, Heard: a.lookups.heard})
		a.lookups.heard = []string{}
	})
	if err != nil {
		return err
	}
	same := table == a.published && !endpointsChanged
	if !same {
		a.names.Store(&names{causes: table.Causes()})
	}
	if err := a.putInForce(table, eps, !same); err != nil {
		return err
	}
	if same {
		a.lastInput = now // nothing of it concerns this node's rules
		a.namesPublished()
		return nil
	}
	a.published, a.lastInput = table, now
	a.namesPublished()
	if !since.IsZero() {
		a.metrics.Applied(time.Since(since))
	}
	a.mu.Lock()
	a.status.generation, a.status.published = table.Generation(), time.Now()
	a.mu.Unlock()
	a.log.Log(context.Background(), level, "published", "generation", table.Generation(), "endpoints", len(eps))
	return nil
}

// hostAddrs returns the node's own addresses, from which it always reaches its
// pods. Each pod's link has a link-local one on this side, too; were that among
// them, every rule would change with every pod, and every flow be judged anew.
// The kernel sends from it only to link-local addresses, unless it has none that
// reaches further (RFC 6724, section 5, rule 2), and pods of this node have.
func (a *Agent) hostAddrs() []netip.Addr {
	own, local := a.links.HostAddrs()
	further := func(x netip.Addr) bool { return x.Is6() && !x.IsLinkLocalUnicast() }
	if slices.ContainsFunc(own, further) {
		return own
	}
	for _, ep := range a.attached {
		if slices.ContainsFunc(ep.Addrs, further) {
			return slices.Concat(own, local)
		}
	}
	return own
}
