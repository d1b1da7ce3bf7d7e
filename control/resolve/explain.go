package resolve

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// End is one end of a Query: a pod, or an address, or a pod at one of its
// addresses. An address that belongs to a pod stands for the pod.
type End struct {
	Pod  store.Key
	Addr netip.Addr
}

// Query asks about the first packet of a flow. For ICMP, Port is
// type<<8|code, as in rule.PortRange.
type Query struct {
	Src, Dst End
	Protocol policy.Protocol
	Port     uint16
}

// World is what the store doesn't know.
type World struct {
	NodeAddrs map[string][]netip.Addr // by node, beside what the store has
	Domains   map[string][]netip.Addr
}

// Decision is the answer to a Query.
type Decision struct {
	Allowed   bool
	Audit     bool             // allowed only because a denial is an audit
	DecidedBy []rule.PolicyRef // as in Flow events: egress, then ingress; of a denial, the direction that denied
	Text      string           // the reason where no policy is one
	Src, Dst  netip.Addr       // the addresses that were judged; invalid if a pod has none
	Egress    Judgement
	Ingress   Judgement
}

// Judgement is the verdict of one direction.
type Judgement struct {
	Judged     bool // the end is a pod with a network of its own
	Action     rule.Action
	Audit      bool // a denial that is reported, not enforced
	Refs       []rule.PolicyRef
	Text       string
	Candidates []rule.PolicyRef // every policy that selects the pod in this direction
}

// UnknownPodError reports a pod that the store doesn't have.
type UnknownPodError struct{ Pod store.Key }

func (e *UnknownPodError) Error() string { return "pod " + e.Pod.String() + ": not found" }

// Explain judges one packet by walking the policies themselves. It is slow and
// independent of compiled rules.
func Explain(v store.View, q Query, w World) (Decision, error) {
	src, dst, err := ends(v, q)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Src: src.addr, Dst: dst.addr}
	if src.same(dst) {
		d.Allowed, d.Text = true, "same pod"
		return d, nil
	}
	d.Egress = judge(v, w, rule.Egress, src, dst, q)
	d.Ingress = judge(v, w, rule.Ingress, dst, src, q)
	for _, j := range []*Judgement{&d.Egress, &d.Ingress} {
		if j.Action == rule.Deny && !j.Audit {
			d.DecidedBy, d.Text = j.Refs, j.Text
			return d, nil
		}
	}
	d.Allowed = true
	d.Audit = d.Egress.Audit || d.Ingress.Audit
	d.DecidedBy = slices.Concat(d.Egress.Refs, d.Ingress.Refs)
	d.Text = d.Ingress.Text
	return d, nil
}

// party is one end as policy sees it.
type party struct {
	pod        *store.Pod // nil for an address that is no pod's
	identity   *store.Identity
	addr       netip.Addr
	identities []*store.Identity // of all pods at the address
}

func (p party) same(q party) bool {
	return p.pod != nil && p.pod == q.pod && !p.pod.HostNetwork ||
		p.pod == nil && q.pod == nil && p.addr == q.addr
}

func ends(v store.View, q Query) (src, dst party, err error) {
	srcAddrs, err := addrsOf(v, q.Src)
	if err != nil {
		return src, dst, err
	}
	dstAddrs, err := addrsOf(v, q.Dst)
	if err != nil {
		return src, dst, err
	}
	a, b := first(srcAddrs), first(dstAddrs)
pairs:
	for _, x := range srcAddrs {
		for _, y := range dstAddrs {
			if x.Is4() == y.Is4() {
				a, b = x, y
				break pairs
			}
		}
	}
	return newParty(v, q.Src, a), newParty(v, q.Dst, b), nil
}

func first(addrs []netip.Addr) netip.Addr {
	if len(addrs) > 0 {
		return addrs[0]
	}
	return netip.Addr{}
}

func addrsOf(v store.View, e End) ([]netip.Addr, error) {
	pod := v.Pod(e.Pod)
	if pod == nil && (e.Pod != store.Key{} || !e.Addr.IsValid()) {
		return nil, &UnknownPodError{e.Pod}
	}
	if e.Addr.IsValid() {
		return []netip.Addr{e.Addr.Unmap()}, nil
	}
	return pod.Addrs(), nil
}

func newParty(v store.View, e End, addr netip.Addr) party {
	p := party{addr: addr}
	if e.Pod != (store.Key{}) {
		p.pod = v.Pod(e.Pod)
	}
	var at []*store.Pod
	if addr.IsValid() {
		at = v.PodsAt(addr)
	}
	if p.pod == nil && len(at) > 0 {
		p.pod = at[0]
	}
	if p.pod != nil && !slices.Contains(at, p.pod) {
		at = append(slices.Clone(at), p.pod)
	}
	for _, x := range at {
		if id := v.PodIdentity(x.Key()); id != nil && !slices.Contains(p.identities, id) {
			p.identities = append(p.identities, id)
		}
	}
	if p.pod != nil {
		p.identity = v.PodIdentity(p.pod.Key())
	}
	for n := range v.Nodes() {
		if addr.IsValid() && slices.Contains(n.Addrs, addr) {
			p.identities = append(p.identities, v.NodeIdentity(n.Name))
		}
	}
	return p
}

// judge decides one direction for a subject that talks with remote.
func judge(v store.View, w World, dir rule.Direction, subject, remote party, q Query) Judgement {
	j := Judgement{Action: rule.Allow}
	if subject.identity == nil {
		return j
	}
	j.Judged = true
	policies, staged := InForce(v, Selecting(v, subject.identity), dir)
	for _, p := range policies {
		ref := Ref(p, rule.DefaultRule, dir)
		if !slices.Contains(j.Candidates, ref) {
			j.Candidates = append(j.Candidates, ref)
		}
	}
	at := scene{v, w, &Site{Node: subject.pod.NodeName, Addrs: w.NodeAddrs[subject.pod.NodeName]}}
	at.walk(dir, subject, remote, q, policies, &j)
	if staged != nil && j.Action == rule.Allow {
		next := Judgement{Action: rule.Allow}
		if at.walk(dir, subject, remote, q, staged, &next); next.Action == rule.Deny && !next.Audit {
			j.Action, j.Audit, j.Refs, j.Text = rule.Deny, true, next.Refs, next.Text
		}
	}
	return j
}

// walk judges by a list of policies in the order of judgement.
func (at *scene) walk(dir rule.Direction, subject, remote party, q Query, policies []*policy.Policy, j *Judgement) {
	first, rest := policies[:0], policies
	if dir == rule.Ingress {
		first, rest = BeforeOwnNode(policies)
	}
	if at.judgeTiers(dir, subject, remote, q, first, j) {
		return
	}
	if dir == rule.Ingress && ownNode(at.v, at.w, subject.pod.NodeName, remote.addr) {
		j.Text = OwnNode
		return
	}
	at.judgeTiers(dir, subject, remote, q, rest, j)
}

// scene is what a judgement depends on beside the policies and the packet.
type scene struct {
	v    store.View
	w    World
	site *Site
}

// judgeTiers reports whether any tier decided.
func (at *scene) judgeTiers(dir rule.Direction, subject, remote party, q Query, policies []*policy.Policy, j *Judgement) bool {
	for len(policies) > 0 {
		n := 1
		for n < len(policies) && policies[n].Tier == policies[0].Tier {
			n++
		}
		if at.judgeTier(dir, subject, remote, q, policies[:n], j) {
			return true
		}
		policies = policies[n:]
	}
	return false
}

// BeforeOwnNode splits policies, in the order of judgement, at the place where
// a pod's own node is let in.
func BeforeOwnNode(policies []*policy.Policy) (before, after []*policy.Policy) {
	n := 0
	for n < len(policies) && policies[n].Tier == policy.TierOwnNode {
		n++
	}
	return policies[:n], policies[n:]
}

// OwnNode is the reason why a node reaches its pods.
const OwnNode = "own node"

func ownNode(v store.View, w World, node string, a netip.Addr) bool {
	return a.IsValid() && (slices.Contains(v.NodeAddrs(node), a) || slices.Contains(w.NodeAddrs[node], a))
}

// judgeTier reports whether a tier decided, and puts the decision into j.
func (at *scene) judgeTier(dir rule.Direction, subject, remote party, q Query, tier []*policy.Policy, j *Judgement) bool {
	audit := true
	var isolating []rule.PolicyRef
	for _, p := range tier {
		section := Section(p, dir)
		for i := range section.Rules {
			r := &section.Rules[i]
			if r.Action == policy.Next || !at.matches(dir, r, subject, remote, q) {
				continue
			}
			if r.Action == policy.Pass {
				return false
			}
			j.Action = actions[r.Action]
			j.Audit = r.Action == policy.Deny && at.v.Audit(p)
			j.Refs = []rule.PolicyRef{RefOf(p, r, dir)}
			return true
		}
		if section.Default == policy.Deny {
			audit = audit && at.v.Audit(p)
			if ref := Ref(p, rule.DefaultRule, dir); !slices.Contains(isolating, ref) {
				isolating = append(isolating, ref)
			}
		}
	}
	if isolating == nil {
		return false
	}
	j.Action, j.Audit, j.Refs = rule.Deny, audit, isolating
	return true
}

// matches looks at each peer and each port of a rule.
func (at *scene) matches(dir rule.Direction, r *policy.Rule, subject, remote party, q Query) bool {
	if !at.further(dir, r, subject, remote, q) {
		return false
	}
	subject.identity = Caller(r, subject.identity)
	peers := r.Peers
	if r.AnyPeer {
		peers = []policy.Peer{{}}
	}
	ports := r.Ports
	if r.AnyPort {
		ports = []policy.Port{{}}
	}
	for i := range peers {
		for _, port := range ports {
			if at.matchesOne(dir, &peers[i], r.AnyPeer, port, r.AnyPort, subject, remote, q) {
				return true
			}
		}
	}
	return false
}

// further looks at what a rule asks beside peers and ports.
func (at *scene) further(dir rule.Direction, r *policy.Rule, subject, remote party, q Query) bool {
	local := func(p policy.Peer) bool { return IsLocal(at.v, &p, subject.identity, subject.addr) }
	there := func(p policy.Peer) bool {
		return at.matchesOne(dir, &p, false, policy.Port{}, true, subject, remote, q)
	}
	anyOf := func(f func(policy.Peer) bool) func([]policy.Peer) bool {
		return func(list []policy.Peer) bool { return !slices.ContainsFunc(list, f) }
	}
	if slices.ContainsFunc(r.Local, anyOf(local)) || slices.ContainsFunc(r.NotLocal, local) ||
		slices.ContainsFunc(r.And, anyOf(there)) || slices.ContainsFunc(r.Not, there) {
		return false
	}
	return !slices.ContainsFunc(r.NotPorts, func(port policy.Port) bool {
		return PortMatches(dir, port, Caller(r, subject.identity), Callers(r, remote.identities), q.Protocol, q.Port)
	})
}

// PortMatches reports whether a port is that of a packet between a subject and
// a remote end that is any of ids.
func PortMatches(dir rule.Direction, port policy.Port, subject *store.Identity, ids []*store.Identity, proto policy.Protocol, n uint16) bool {
	if port.Name == "" {
		return port.Protocol == proto && port.From <= n && n <= port.To
	}
	if dir == rule.Ingress {
		ids = []*store.Identity{subject}
	}
	return (port.Protocol == 0 || port.Protocol == proto) &&
		slices.ContainsFunc(ids, func(id *store.Identity) bool { return id.HasPort(port.Name, proto, n) })
}

func (at *scene) matchesOne(dir rule.Direction, peer *policy.Peer, anyPeer bool, port policy.Port, anyPort bool, subject, remote party, q Query) bool {
	numbered := anyPort || port.Name == "" && port.Protocol == q.Protocol && port.From <= q.Port && q.Port <= port.To
	byName := !anyPort && port.Name != "" && (port.Protocol == 0 || port.Protocol == q.Protocol)
	if byName && dir == rule.Ingress {
		numbered = subject.identity.HasPort(port.Name, q.Protocol, q.Port)
		byName = false
	}
	if !numbered && !byName {
		return false
	}
	if numbered && anyPeer {
		return true
	}
	if numbered && peer.Block != nil {
		return BlockMatches(at.v, at.site, peer.Block, remote.addr)
	}
	if !anyPeer && isPlace(peer) {
		return at.inPlace(peer, port, numbered, remote, q)
	}
	if peer.Domain != "" {
		return numbered && slices.Contains(resolveDomain(at.w.Domains, peer.Domain), remote.addr)
	}
	if peer.Block != nil && (peer.Block.Unmanaged || !(remote.addr.IsValid() && peer.Block.Contains(remote.addr))) {
		return false
	}
	return slices.ContainsFunc(remote.identities, func(id *store.Identity) bool {
		return (numbered || id.HasPort(port.Name, q.Protocol, q.Port)) &&
			(peer.Selector == nil || peer.Selector.Matches(&id.Entity))
	})
}

// inPlace judges a peer that is no selector, block or domain. Ports by name
// mean something where pods are.
func (at *scene) inPlace(peer *policy.Peer, port policy.Port, numbered bool, remote party, q Query) bool {
	if peer.Endpoints != nil && peer.Endpoints.OnPorts {
		return numbered && isServed(at.v, peer.Endpoints, remote.addr, remote.identities, q.Protocol, q.Port)
	}
	if numbered {
		return PlaceMatches(at.v, at.site, at.w.Domains, peer, remote.addr, remote.identities)
	}
	for _, s := range placeOf(at.v, at.site, at.w.Domains, peer).selectors {
		for _, id := range remote.identities {
			if s.Matches(&id.Entity) && id.HasPort(port.Name, q.Protocol, q.Port) {
				return true
			}
		}
	}
	return false
}

// Section returns what a policy says about a direction.
func Section(p *policy.Policy, dir rule.Direction) *policy.Section {
	if dir == rule.Egress {
		return &p.Egress
	}
	return &p.Ingress
}

// Ref names a rule of a policy. The tier of NetworkPolicy goes without saying,
// and TierOwnNode is a matter of order only.
func Ref(p *policy.Policy, index int, dir rule.Direction) rule.PolicyRef {
	ref := rule.PolicyRef{Kind: p.Origin.Kind, Namespace: p.Origin.Namespace, Name: p.Origin.Name,
		Rule: index, Direction: dir}
	switch {
	case p.TierName != "":
		ref.Tier = p.TierName
	case p.Tier != policy.TierNetworkPolicy && p.Tier != policy.TierOwnNode:
		ref.Tier = p.Tier.Name
	}
	return ref
}

// RefOf names a rule as its object has it.
func RefOf(p *policy.Policy, r *policy.Rule, dir rule.Direction) rule.PolicyRef {
	ref := Ref(p, r.Index, dir)
	ref.Path = r.Path
	return ref
}
