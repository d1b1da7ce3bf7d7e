package calico_test

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// world is what a test knows of a cluster. It judges as one who has read
// Calico's documentation would, with no help from Sluice: selectors are
// functions, packets have two ends, and each question walks everything.
type world struct {
	namespaces map[string]map[string]string
	accounts   map[[2]string]map[string]string // namespace, name → labels
	pods       []*pod
	sets       []*set
	tiers      map[string]*tier
	services   []*service
	policies   []*pol
}

type pod struct {
	ns, name, account string
	labels            map[string]string
	addrs             []netip.Addr
	ports             []containerPort
}

type containerPort struct {
	name  string
	proto uint8
	port  uint16
}

type set struct {
	ns, name string
	labels   map[string]string
	nets     []netip.Prefix
}

type tier struct {
	order *float64
	pass  bool
}

type service struct {
	ns, name string
	app      string // selector
	sliced   bool
	addrs    []netip.Addr // of its EndpointSlice
	port     containerPort
}

// expr is a selector and what it means.
type expr struct {
	text  string
	holds func(map[string]string) bool
}

type pol struct {
	kind, ns, name, tier string
	order                *float64
	sel, nsSel, saSel    *expr
	ingress, egress      []*rul
	governIn, governOut  bool
	types                []string
	staged, kubernetes   bool
}

type rul struct {
	action             string
	version            int
	proto, notProto    uint8
	icmpType, icmpCode int // -1: none
	notType            int
	src, dst           ent
}

type ent struct {
	nets, notNets      []netip.Prefix
	sel, notSel, nsSel *expr
	global             bool
	saNames            []string
	saSel              *expr
	ports, notPorts    []prt
	service            *service
}

type prt struct {
	name     string
	from, to uint16
}

type packet struct {
	src, dst netip.Addr
	proto    uint8
	port     uint16
}

// podLabels are a pod's labels as Calico has them on its endpoint.
func (w *world) podLabels(p *pod) map[string]string {
	out := map[string]string{}
	for k, v := range p.labels {
		out[k] = v
	}
	out["projectcalico.org/namespace"], out["projectcalico.org/orchestrator"] = p.ns, "k8s"
	out["projectcalico.org/serviceaccount"] = p.account
	w.inherit(out, p.ns)
	for k, v := range w.accounts[[2]string{p.ns, p.account}] {
		out["pcsa."+k] = v
	}
	out["pcsa.projectcalico.org/name"] = p.account
	return out
}

func (w *world) inherit(out map[string]string, ns string) {
	for k, v := range w.namespaces[ns] {
		out["pcns."+k] = v
	}
	out["pcns.projectcalico.org/name"] = ns
}

// at lists the labels of all that is at an address.
func (w *world) at(a netip.Addr) []map[string]string {
	var out []map[string]string
	for _, p := range w.pods {
		if slices.Contains(p.addrs, a) {
			out = append(out, w.podLabels(p))
		}
	}
	for _, s := range w.sets {
		if in(s.nets, a) {
			l := map[string]string{}
			for k, v := range s.labels {
				l[k] = v
			}
			if s.ns != "" {
				l["projectcalico.org/namespace"] = s.ns
				w.inherit(l, s.ns)
			}
			out = append(out, l)
		}
	}
	return out
}

func in(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// below returns labels without a prefix, as a selector of namespaces sees them.
func below(prefix string, labels map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range labels {
		if rest, ok := strings.CutPrefix(k, prefix); ok {
			out[rest] = v
		}
	}
	return out
}

func (e *ent) matches(w *world, ns string, a netip.Addr, p packet, dst bool) bool {
	if len(e.nets) > 0 && !in(e.nets, a) || in(e.notNets, a) {
		return false
	}
	selects := e.sel != nil || e.nsSel != nil || e.global || e.saSel != nil || e.saNames != nil || ns != "" && e.notSel != nil
	selected := func(l map[string]string) bool {
		if !selects {
			return true
		}
		inNS, hasNS := l["projectcalico.org/namespace"]
		switch {
		case e.global:
			if hasNS {
				return false
			}
		case e.nsSel != nil:
			if !e.nsSel.holds(below("pcns.", l)) || e.nsSel.text == "all()" && !hasNS {
				return false
			}
		case ns != "":
			if inNS != ns {
				return false
			}
		}
		return (e.sel == nil || e.sel.holds(l)) && (e.notSel == nil || !e.notSel.holds(l)) &&
			(e.saSel == nil || e.saSel.holds(below("pcsa.", l))) &&
			(e.saNames == nil || slices.Contains(e.saNames, l["projectcalico.org/serviceaccount"]))
	}
	if selects && !slices.ContainsFunc(w.at(a), selected) {
		return false
	}
	if !selects && e.notSel != nil && slices.ContainsFunc(w.at(a), e.notSel.holds) {
		return false
	}
	if e.service != nil && !w.serves(e.service, a, p, dst) {
		return false
	}
	if !dst {
		return true
	}
	is := func(q prt) bool {
		if q.name == "" {
			return q.from <= p.port && p.port <= q.to
		}
		// Felix looks names up on the endpoints that are selected, so that what
		// a network set alone selects calls no port by a name.
		return slices.ContainsFunc(w.pods, func(x *pod) bool {
			return slices.Contains(x.addrs, a) && selected(w.podLabels(x)) && slices.Contains(x.ports, containerPort{q.name, p.proto, p.port})
		})
	}
	return (len(e.ports) == 0 || slices.ContainsFunc(e.ports, is)) && !slices.ContainsFunc(e.notPorts, is)
}

func (w *world) serves(s *service, a netip.Addr, p packet, onPort bool) bool {
	if s.sliced {
		return slices.Contains(s.addrs, a) && (!onPort || p.proto == s.port.proto && p.port == s.port.port)
	}
	return slices.ContainsFunc(w.pods, func(x *pod) bool {
		if x.ns != s.ns || x.labels["app"] != s.app || !slices.Contains(x.addrs, a) {
			return false
		}
		return !onPort || p.proto == s.port.proto && p.port == s.port.port
	})
}

func (r *rul) matches(w *world, ns string, p packet) bool {
	six := p.src.Is6()
	for _, list := range [][]netip.Prefix{r.src.nets, r.src.notNets, r.dst.nets, r.dst.notNets} {
		if len(list) > 0 && !slices.ContainsFunc(list, func(x netip.Prefix) bool { return x.Addr().Is6() == six }) {
			return false
		}
	}
	version := r.version
	if version == 0 && r.proto == 1 {
		version = 4
	}
	if version == 0 && r.proto == 58 {
		version = 6
	}
	if version == 4 && six || version == 6 && !six || r.proto != 0 && r.proto != p.proto || r.notProto != 0 && r.notProto == p.proto {
		return false
	}
	if r.icmpType >= 0 && (int(p.port>>8) != r.icmpType || r.icmpCode >= 0 && int(p.port&0xff) != r.icmpCode) {
		return false
	}
	if r.notType >= 0 && (p.proto == 1 || p.proto == 58) && int(p.port>>8) == r.notType {
		return false
	}
	return r.src.matches(w, ns, p.src, p, false) && r.dst.matches(w, ns, p.dst, p, true)
}

func (w *world) selects(x *pol, p *pod) bool {
	l := w.podLabels(p)
	return (x.ns == "" || x.ns == p.ns) && (x.sel == nil || x.sel.holds(l)) &&
		(x.nsSel == nil || x.nsSel.holds(below("pcns.", l))) && (x.saSel == nil || x.saSel.holds(below("pcsa.", l)))
}

type verdict struct {
	allow, audit bool
	refs         []rule.PolicyRef
}

// judge answers for one pod and direction.
func (w *world) judge(p *pod, dir rule.Direction, pk packet) verdict {
	v := w.walk(p, dir, pk, false)
	if v.allow && slices.ContainsFunc(w.policies, func(x *pol) bool { return x.staged }) {
		if s := w.walk(p, dir, pk, true); !s.allow {
			return verdict{true, true, s.refs}
		}
	}
	return v
}

func (w *world) walk(p *pod, dir rule.Direction, pk packet, staged bool) verdict {
	byTier := map[string][]*pol{}
	for _, x := range w.policies {
		governs := x.governIn
		if dir == rule.Egress {
			governs = x.governOut
		}
		if governs && (staged || !x.staged) && w.selects(x, p) && !(staged && w.replaced(x)) {
			byTier[x.tier] = append(byTier[x.tier], x)
		}
	}
	names := slices.SortedFunc(mapKeys(byTier), func(a, b string) int {
		return cmp.Or(cmp.Compare(w.rank(a), w.rank(b)), cmp.Compare(w.order(a), w.order(b)), cmp.Compare(a, b))
	})
	for _, name := range names {
		list := byTier[name]
		slices.SortFunc(list, func(a, b *pol) int {
			return cmp.Or(cmp.Compare(orderOf(a.order), orderOf(b.order)), cmp.Compare(a.tieName(), b.tieName()),
				cmp.Compare(a.ns, b.ns), cmp.Compare(strings.TrimPrefix(a.kind, "Calico"), strings.TrimPrefix(b.kind, "Calico")))
		})
		v, decided := w.tierVerdict(name, list, dir, pk)
		if decided {
			return v
		}
	}
	return verdict{allow: true}
}

func (w *world) tierVerdict(name string, list []*pol, dir rule.Direction, pk packet) (verdict, bool) {
	var isolating []rule.PolicyRef
	for _, x := range list {
		rules := x.ingress
		if dir == rule.Egress {
			rules = x.egress
		}
		ref := rule.PolicyRef{Kind: x.kind, Namespace: x.ns, Name: x.name, Direction: dir, Tier: name}
		if x.kubernetes {
			ref.Tier = ""
		}
		for i, r := range rules {
			ref.Rule = i
			if r.action == "Log" || !r.matches(w, x.ns, pk) {
				continue
			}
			if r.action == "Pass" {
				return verdict{}, false
			}
			return verdict{allow: r.action == "Allow", refs: []rule.PolicyRef{ref}}, true
		}
		ref.Rule = rule.DefaultRule
		isolating = append(isolating, ref)
	}
	if t := w.tiers[name]; t != nil && t.pass {
		return verdict{}, false
	}
	return verdict{refs: isolating}, true
}

func (x *pol) tieName() string {
	if x.kubernetes {
		return "knp.default." + x.name
	}
	if strings.HasPrefix(x.name, x.tier+".") {
		return x.name
	}
	return x.tier + "." + x.name
}

func (w *world) replaced(x *pol) bool {
	return !x.staged && slices.ContainsFunc(w.policies, func(y *pol) bool {
		return y.staged && y.ns == x.ns && y.name == x.name && strings.TrimPrefix(y.kind, "Staged") == strings.TrimPrefix(x.kind, "Calico")
	})
}

// rank puts tiers that nobody has last, order those without an order.
func (w *world) rank(name string) int {
	if name != "default" && w.tiers[name] == nil {
		return 1
	}
	return 0
}

func (w *world) order(name string) float64 {
	if name == "default" {
		return 1_000_000
	}
	if t := w.tiers[name]; t != nil {
		return orderOf(t.order)
	}
	return 0
}

func orderOf(o *float64) float64 {
	if o == nil {
		return 1e300
	}
	return *o
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
