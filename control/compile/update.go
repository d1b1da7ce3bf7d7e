package compile

import (
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Update returns how the Set for in differs from the one before it. It returns
// false where a new Set is due: Compile is to be called then. That is the case
// at first, when more has changed than is worth following, and when too many
// numbers are in use that nobody needs any more.
//
// A Delta that is Empty has no Generation of its own: nothing has changed that
// concerns this node.
func (c *Compiler) Update(in Input) (rule.Delta, bool) {
	b := c.latest
	if b == nil || b.node != in.Node || b.exhausted() {
		return rule.Delta{}, false
	}
	changes, ok := in.View.Since(b.generation)
	if !ok || len(changes) > maxFollowed {
		return rule.Delta{}, false
	}
	b.view, b.generation = in.View, in.View.Generation()
	c.causes.begin()
	b.peers.Begin(in.View, in.Domains, in.Heard, siteOf(in), slices.ContainsFunc(changes, func(c store.Change) bool { return c.Nodes || c.Outside }))
	if slices.ContainsFunc(changes, func(c store.Change) bool { return c.NetworkSets }) {
		b.peers.Resets()
	}
	affected := b.follow(changes)
	if b.ownNode(in) {
		affected.all = true
	}
	moved := b.place(in.Endpoints) || b.replace(affected.pods)
	b.recompile(affected)
	moved = b.split(affected) || moved
	rehashed := b.rehash()
	var d rule.Delta
	if moved || rehashed || affected.compiled {
		if b.index() {
			d.Endpoints = b.set.Endpoints
		}
	}
	if d.Programs = b.programs.publish(); d.Programs != nil {
		b.set.Programs = d.Programs
	}
	b.peers.Flush(&d, b.set.Blocks)
	b.set.Identities = append(b.set.Identities, d.Identities...)
	if d.Blocks != nil {
		b.set.Blocks = d.Blocks
	}
	if causes := c.causes.published(); causes != nil {
		d.Causes = causes
	}
	if !d.Empty() {
		c.cfg.Generation++
		d.Generation = c.cfg.Generation
	}
	return d, true
}

// maxFollowed is how many changes are followed one by one.
const maxFollowed = 1 << 14

// affected is whom changes of the store may concern.
type affected struct {
	all      bool
	policies map[policy.Origin]struct{}
	pods     map[store.Key]struct{} // of this node
	compiled bool                   // some subject has been compiled anew
}

// follow brings the peers in step with the store.
func (b *builder) follow(changes []store.Change) *affected {
	a := &affected{policies: map[policy.Origin]struct{}{}, pods: map[store.Key]struct{}{}}
	for i := range changes {
		switch c := &changes[i]; {
		case c.Identity != nil:
			b.peers.Touch(c.Identity)
		case c.Policy != policy.Origin{}:
			a.policies[c.Policy] = struct{}{}
		case c.Audit != "":
			for o := range b.users.ofPolicy {
				if o.Namespace == c.Audit {
					a.policies[o] = struct{}{}
				}
			}
			for o := range b.rules { // also of those that select nobody here now
				if o.Namespace == c.Audit {
					delete(b.rules, o)
				}
			}
		case c.Pod != store.Key{}:
			if b.local[c.Pod] != nil {
				a.pods[c.Pod] = struct{}{}
			}
		}
	}
	for i := range changes {
		if a := changes[i].Addr; a.IsValid() {
			b.peers.TouchAddr(a)
		}
	}
	b.peers.Touched()
	for o := range b.peers.Renamed() {
		a.policies[o] = struct{}{}
	}
	for o := range a.policies {
		delete(b.rules, o)
	}
	return a
}

// replace finds the subjects of endpoints whose pods have changed. It reports
// whether any is another.
func (b *builder) replace(pods map[store.Key]struct{}) (changed bool) {
	for key := range pods {
		for _, i := range b.local[key] {
			changed = b.rejoin(i) || changed
		}
	}
	return changed
}

// rejoin finds the subject of an endpoint anew. It reports whether it is
// another.
func (b *builder) rejoin(i int) bool {
	old := b.subjectOf[i]
	if key, _ := b.keyOf(&b.endpoints[i]); key == old.subjectKey {
		return false
	}
	b.subjectOf[i] = b.join(&b.endpoints[i])
	b.leave(old)
	return true
}

// split looks whether policies ask for addresses now, or do no more, where
// subjects have been compiled anew.
func (b *builder) split(a *affected) (changed bool) {
	if !a.compiled {
		return false
	}
	differ := false
	for id, was := range b.asked {
		if id == nil {
			continue
		}
		if is := b.byAddress(resolve.Selecting(b.view, id)); is != was.byAddress {
			was.byAddress, differ = is, true
			b.asked[id] = was
		}
	}
	if differ {
		for i := range b.endpoints {
			changed = b.rejoin(i) || changed
		}
	}
	return changed
}

// recompile compiles those subjects anew that policies concern, or did.
func (b *builder) recompile(a *affected) {
	if !a.all && len(a.policies) == 0 {
		return
	}
	again := map[*subject]struct{}{}
	for o := range a.policies {
		for s := range b.users.ofPolicy[o] {
			again[s] = struct{}{}
		}
		for p := range b.view.PoliciesOf(o) {
			for key, s := range b.subjects {
				if id := key.identity; id != nil && (o.Namespace == "" || o.Namespace == id.Entity.Namespace) && p.Selects(&id.Entity) {
					again[s] = struct{}{}
				}
			}
		}
	}
	for _, s := range b.subjects {
		if _, ok := again[s]; ok || a.all {
			b.compile(s)
			a.compiled = true
		}
	}
}

// rehash brings the hashes of subjects in step with the addresses of their
// peers. It reports whether there were any.
func (b *builder) rehash() (any bool) {
	changed := b.peers.Changed()
	again := map[*subject]struct{}{}
	for id := range changed {
		for s := range b.users.ofPeer[id] {
			again[s] = struct{}{}
		}
	}
	for s := range again {
		b.resum(s, changed)
		s.hash = b.hash(s)
	}
	return len(again) > 0
}

// limits are how far numbers may grow until those that nobody needs are
// worth dropping; of causes, which keep theirs, how many may be given out.
type limits struct{ peers, identities, causes int }

// measure sets the limits, given a Set that is new.
func (b *builder) measure() {
	grow := func(n int) int { return 2*n + 1<<12 }
	b.programs.publish()
	b.limits = limits{grow(b.peers.Len()), grow(len(b.set.Identities)), b.c.causes.live + 1<<12}
}

func (b *builder) exhausted() bool {
	return b.peers.Len() > b.limits.peers || len(b.set.Identities) > b.limits.identities ||
		b.c.causes.taken > b.limits.causes
}
