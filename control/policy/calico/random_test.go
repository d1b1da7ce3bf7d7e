package calico_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }
func one(r *rand.Rand, in int) bool         { return r.IntN(in) == 0 }

// Small pools make everything overlap.
var (
	someNets4 = []string{"10.0.0.0/8", "10.0.0.0/29", "10.0.0.2/31", "10.0.0.3/32", "192.0.2.0/24", "192.0.2.128/25"}
	someNets6 = []string{"fd00::/16", "fd00::/125", "fd00::2/127", "2001:db8::/32", "2001:db8:1::/48"}
	outside   = []string{"192.0.2.1", "192.0.2.200", "8.8.8.8", "2001:db8::1", "2001:db8:1::1", "fe80::1"}
	somePorts = []uint16{80, 81, 443, 8080}
)

func randomLabels(r *rand.Rand) map[string]string {
	out := map[string]string{}
	for _, k := range []string{"app", "role"} {
		if !one(r, 3) {
			out[k] = pick(r, "x", "y", "z")
		}
	}
	return out
}

func randomExpr(r *rand.Rand, depth int) *expr {
	k, v := pick(r, "app", "role"), pick(r, "x", "y", "z")
	kind := r.IntN(9)
	if depth == 0 && kind > 5 {
		kind = r.IntN(6)
	}
	switch kind {
	case 0:
		return &expr{fmt.Sprintf("%s == '%s'", k, v), func(l map[string]string) bool { return l[k] == v }}
	case 1:
		return &expr{fmt.Sprintf("%s != '%s'", k, v), func(l map[string]string) bool { return l[k] != v }}
	case 2:
		return &expr{fmt.Sprintf("has(%s)", k), func(l map[string]string) bool { _, ok := l[k]; return ok }}
	case 3:
		return &expr{fmt.Sprintf("%s in {'x', '%s'}", k, v), func(l map[string]string) bool { return l[k] == "x" || l[k] == v }}
	case 4:
		return &expr{fmt.Sprintf("%s not in {'%s'}", k, v), func(l map[string]string) bool { return l[k] != v }}
	case 5:
		return &expr{"all()", func(map[string]string) bool { return true }}
	}
	a, b := randomExpr(r, depth-1), randomExpr(r, depth-1)
	switch kind {
	case 6:
		return &expr{"(" + a.text + ") && (" + b.text + ")", func(l map[string]string) bool { return a.holds(l) && b.holds(l) }}
	case 7:
		return &expr{"(" + a.text + ") || (" + b.text + ")", func(l map[string]string) bool { return a.holds(l) || b.holds(l) }}
	}
	if strings.Contains(a.text, "all()") { // of namespaces it means something else
		return a
	}
	return &expr{"!(" + a.text + ")", func(l map[string]string) bool { return !a.holds(l) }}
}

func maybe(r *rand.Rand, in int) *expr {
	if !one(r, in) {
		return nil
	}
	return randomExpr(r, 2)
}

// plain is a selector of namespaces: all() in it is only ever alone.
func plain(r *rand.Rand) *expr {
	for {
		if e := randomExpr(r, 1); e.text == "all()" || !strings.Contains(e.text, "all()") {
			return e
		}
	}
}

func randomWorld(r *rand.Rand) *world {
	w := &world{namespaces: map[string]map[string]string{}, accounts: map[[2]string]map[string]string{}, tiers: map[string]*tier{}}
	spaces := []string{"a", "b"}
	for _, ns := range spaces {
		w.namespaces[ns] = randomLabels(r)
		w.namespaces[ns]["kubernetes.io/metadata.name"] = ns
		w.accounts[[2]string{ns, "sa1"}] = randomLabels(r)
	}
	for i := range 3 + r.IntN(5) {
		p := &pod{ns: pick(r, spaces...), name: fmt.Sprintf("p%d", i), account: pick(r, "sa1", "sa2"), labels: randomLabels(r),
			addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd00::%x", i))}}
		for range r.IntN(3) {
			p.ports = append(p.ports, containerPort{pick(r, "http", "web"), pick[uint8](r, 6, 17), pick(r, somePorts...)})
		}
		w.pods = append(w.pods, p)
	}
	for i := range r.IntN(4) {
		s := &set{ns: pick(r, "", "a", "b"), name: fmt.Sprintf("s%d", i), labels: randomLabels(r)}
		for range 1 + r.IntN(2) {
			s.nets = append(s.nets, netip.MustParsePrefix(pick(r, slices.Concat(someNets4, someNets6)...)))
		}
		w.sets = append(w.sets, s)
	}
	for i := range r.IntN(3) {
		s := &service{ns: pick(r, spaces...), name: fmt.Sprintf("svc%d", i), app: pick(r, "x", "y"), sliced: one(r, 2),
			port: containerPort{"", pick[uint8](r, 6, 17), pick(r, somePorts...)}}
		for _, p := range w.pods {
			if s.sliced && one(r, 2) {
				s.addrs = append(s.addrs, p.addrs...)
			}
		}
		w.services = append(w.services, s)
	}
	for _, name := range []string{"bar", "foo", "zoo"} {
		if one(r, 4) {
			continue // policies may name it all the same
		}
		t := &tier{pass: one(r, 2)}
		if !one(r, 4) {
			o := pick(r, 1.0, 2, 1_000_000, 1_000_000, 2_000_000)
			t.order = &o
		}
		w.tiers[name] = t
	}
	for i := range 1 + r.IntN(7) {
		w.policies = append(w.policies, w.randomPolicy(r, i))
	}
	return w
}

func (w *world) randomPolicy(r *rand.Rand, i int) *pol {
	x := &pol{kind: pick(r, "CalicoNetworkPolicy", "GlobalNetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"),
		tier: pick(r, "default", "default", "bar", "foo", "zoo"), sel: maybe(r, 3), saSel: maybe(r, 9)}
	x.name = fmt.Sprintf("n%d", i)
	if x.staged = strings.HasPrefix(x.kind, "Staged"); x.staged && one(r, 2) && i > 0 {
		x.name = fmt.Sprintf("n%d", r.IntN(i)) // perhaps the next version of one
	}
	if one(r, 2) {
		x.name = x.tier + "." + x.name
	}
	if strings.Contains(x.kind, "Global") {
		if one(r, 3) {
			x.nsSel = plain(r)
		}
	} else {
		x.ns = pick(r, "a", "b")
	}
	if slices.ContainsFunc(w.policies, func(y *pol) bool { return y.kind == x.kind && y.ns == x.ns && y.name == x.name }) {
		x.name = fmt.Sprintf("n%d", i)
	}
	if !one(r, 3) {
		o := pick(r, 0.0, 1, 1000)
		x.order = &o
	}
	for range r.IntN(4) {
		x.ingress = append(x.ingress, w.randomRule(r, false, x.ns))
	}
	for range r.IntN(4) {
		x.egress = append(x.egress, w.randomRule(r, true, x.ns))
	}
	switch r.IntN(4) {
	case 0:
		x.types = []string{"Ingress"}
	case 1:
		x.types = []string{"Egress"}
	case 2:
		x.types = []string{"Ingress", "Egress"}
	}
	x.governIn, x.governOut = slices.Contains(x.types, "Ingress"), slices.Contains(x.types, "Egress")
	if x.types == nil {
		x.governIn, x.governOut = len(x.egress) == 0 || len(x.ingress) > 0, len(x.egress) > 0
	}
	return x
}

func (w *world) randomRule(r *rand.Rand, egress bool, ns string) *rul {
	x := &rul{action: pick(r, "Allow", "Allow", "Deny", "Pass", "Log"), icmpType: -1, icmpCode: -1, notType: -1}
	six := one(r, 3)
	nets := func(in int) []netip.Prefix {
		var out []netip.Prefix
		if one(r, in) {
			from := someNets4
			if six {
				from = someNets6
			}
			for range 1 + r.IntN(2) {
				if p := netip.MustParsePrefix(pick(r, from...)); !slices.Contains(out, p) {
					out = append(out, p)
				}
			}
		}
		return out
	}
	x.proto = pick[uint8](r, 0, 0, 0, 6, 17)
	hasNets := false
	for _, e := range []*ent{&x.src, &x.dst} {
		local := (e == &x.src) == egress
		often := 5
		if local {
			often = 16
		}
		if e == &x.dst == egress && len(w.services) > 0 && one(r, 12) {
			e.service = pick(r, w.services...)
			continue
		}
		e.nets, e.notNets = nets(often+1), nets(often+3)
		hasNets = hasNets || e.nets != nil || e.notNets != nil
		e.sel, e.notSel = maybe(r, often), maybe(r, often+3)
		switch r.IntN(often + 2) {
		case 0:
			e.nsSel = plain(r)
		case 1:
			e.global = true
		}
		if one(r, often+4) {
			e.saSel = plain(r)
		}
		if one(r, often+5) {
			e.saNames = []string{"sa1"}
		}
	}
	switch {
	case x.dst.service == nil && one(r, 4):
		x.dst.ports, x.dst.notPorts = randomPorts(r, x.proto != 0), nil
		if one(r, 2) {
			x.dst.notPorts = randomPorts(r, x.proto != 0)
		}
	case !hasNets && one(r, 4) && x.dst.service == nil:
		x.proto = pick[uint8](r, 1, 58)
		if one(r, 2) {
			x.icmpType = pick(r, 8, 128, 3)
			if one(r, 2) {
				x.icmpCode = r.IntN(2)
			}
		} else if one(r, 2) {
			x.notType = pick(r, 8, 128)
		}
	case one(r, 5):
		x.notProto = pick[uint8](r, 6, 17)
	}
	if x.proto != 1 && x.proto != 58 && one(r, 6) {
		x.version = pick(r, 4, 6)
		if hasNets {
			x.version = 4
			if six {
				x.version = 6
			}
		}
	}
	return x
}

func randomPorts(r *rand.Rand, numbers bool) []prt {
	var out []prt
	for range 1 + r.IntN(2) {
		switch {
		case !numbers || one(r, 3):
			out = append(out, prt{name: pick(r, "http", "web")})
		case one(r, 2):
			n := pick(r, somePorts...)
			out = append(out, prt{from: n, to: n})
		default:
			out = append(out, prt{from: 80, to: pick[uint16](r, 81, 443)})
		}
	}
	return out
}
