package calico_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/source/object"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

type m = map[string]any

// put reads an object as a source would.
func put(t testing.TB, tx *store.Tx, apiVersion, kind string, obj m) policy.Origin {
	t.Helper()
	obj["apiVersion"], obj["kind"] = apiVersion, kind
	doc, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	k, ok := object.Lookup(apiVersion, kind)
	if !ok {
		t.Fatalf("%s %s: no such kind", apiVersion, kind)
	}
	o, err := k.Decode(doc)
	if err != nil || len(o.Rejections) > 0 || len(o.Unknown) > 0 {
		t.Fatalf("%s: %v %v %v", doc, err, o.Rejections, o.Unknown)
	}
	object.Put(tx, o.Value)
	return o.Origin
}

const group = "projectcalico.org/v3"

// fill puts a world into a store.
func (w *world) fill(t testing.TB, st *store.Store) {
	st.Update(func(tx *store.Tx) {
		for ns, labels := range w.namespaces {
			put(t, tx, "v1", "Namespace", m{"metadata": m{"name": ns, "labels": labels}})
		}
		for k, labels := range w.accounts {
			put(t, tx, "v1", "ServiceAccount", m{"metadata": m{"namespace": k[0], "name": k[1], "labels": labels}})
		}
		for _, p := range w.pods {
			var ips, ports []m
			for _, a := range p.addrs {
				ips = append(ips, m{"ip": a})
			}
			for _, c := range p.ports {
				ports = append(ports, m{"name": c.name, "containerPort": c.port, "protocol": protoName(c.proto)})
			}
			put(t, tx, "v1", "Pod", m{"metadata": m{"namespace": p.ns, "name": p.name, "labels": p.labels},
				"spec":   m{"serviceAccountName": p.account, "containers": []m{{"name": "c", "ports": ports}}},
				"status": m{"podIPs": ips}})
		}
		for _, s := range w.sets {
			kind := "NetworkSet"
			if s.ns == "" {
				kind = "GlobalNetworkSet"
			}
			put(t, tx, group, kind, m{"metadata": m{"namespace": s.ns, "name": s.name, "labels": s.labels}, "spec": m{"nets": s.nets}})
		}
		for name, x := range w.tiers {
			spec := m{"defaultAction": "Deny"}
			if x.pass {
				spec["defaultAction"] = "Pass"
			}
			if x.order != nil {
				spec["order"] = *x.order
			}
			put(t, tx, group, "Tier", m{"metadata": m{"name": name}, "spec": spec})
		}
		for _, s := range w.services {
			put(t, tx, "v1", "Service", m{"metadata": m{"namespace": s.ns, "name": s.name}, "spec": m{"selector": m{"app": s.app},
				"ports": []m{{"port": 1, "targetPort": s.port.port, "protocol": protoName(s.port.proto)}}}})
			if s.sliced {
				eps := []m{}
				for _, a := range s.addrs {
					eps = append(eps, m{"addresses": []netip.Addr{a}, "conditions": m{"ready": a.Is4()}})
				}
				put(t, tx, "discovery.k8s.io/v1", "EndpointSlice", m{"metadata": m{"namespace": s.ns, "name": s.name,
					"labels": m{"kubernetes.io/service-name": s.name}}, "addressType": "IPv4", "endpoints": eps,
					"ports": []m{{"port": s.port.port, "protocol": protoName(s.port.proto)}}})
			}
		}
		for _, x := range w.policies {
			put(t, tx, group, strings.TrimPrefix(x.kind, "Calico"), m{"metadata": m{"namespace": x.ns, "name": x.name}, "spec": x.spec()})
		}
	})
}

func protoName(p uint8) string {
	return map[uint8]string{6: "TCP", 17: "UDP", 1: "ICMP", 58: "ICMPv6"}[p]
}

func (x *pol) spec() m {
	out := m{"tier": x.tier}
	if x.order != nil {
		out["order"] = *x.order
	}
	for key, e := range map[string]*expr{"selector": x.sel, "namespaceSelector": x.nsSel, "serviceAccountSelector": x.saSel} {
		if e != nil {
			out[key] = e.text
		}
	}
	if x.types != nil {
		out["types"] = x.types
	}
	for key, list := range map[string][]*rul{"ingress": x.ingress, "egress": x.egress} {
		var rules []m
		for _, r := range list {
			rules = append(rules, r.spec())
		}
		if rules != nil {
			out[key] = rules
		}
	}
	return out
}

func (r *rul) spec() m {
	out := m{"action": r.action, "source": r.src.spec(), "destination": r.dst.spec()}
	if r.version != 0 {
		out["ipVersion"] = r.version
	}
	if r.proto != 0 {
		out["protocol"] = protoName(r.proto)
	}
	if r.notProto != 0 {
		out["notProtocol"] = r.notProto
	}
	if r.icmpType >= 0 {
		c := m{"type": r.icmpType}
		if r.icmpCode >= 0 {
			c["code"] = r.icmpCode
		}
		out["icmp"] = c
	}
	if r.notType >= 0 {
		out["notICMP"] = m{"type": r.notType}
	}
	return out
}

func (e *ent) spec() m {
	out := m{}
	for key, x := range map[string]*expr{"selector": e.sel, "notSelector": e.notSel, "namespaceSelector": e.nsSel} {
		if x != nil {
			out[key] = x.text
		}
	}
	if e.global {
		out["namespaceSelector"] = "global()"
	}
	for key, list := range map[string][]netip.Prefix{"nets": e.nets, "notNets": e.notNets} {
		if list != nil {
			out[key] = list
		}
	}
	if e.saSel != nil || e.saNames != nil {
		sa := m{"names": e.saNames}
		if e.saSel != nil {
			sa["selector"] = e.saSel.text
		}
		out["serviceAccounts"] = sa
	}
	if e.service != nil {
		out["services"] = m{"namespace": e.service.ns, "name": e.service.name}
	}
	for key, list := range map[string][]prt{"ports": e.ports, "notPorts": e.notPorts} {
		var ports []any
		for _, p := range list {
			switch {
			case p.name != "":
				ports = append(ports, p.name)
			case p.from == p.to:
				ports = append(ports, p.from)
			default:
				ports = append(ports, fmt.Sprintf("%d:%d", p.from, p.to))
			}
		}
		if ports != nil {
			out[key] = ports
		}
	}
	return out
}

// compareSeed asks the compiled rules, Explain and the naive judge the same.
func compareSeed(t testing.TB, seed uint64, queries int) {
	r := rand.New(rand.NewPCG(seed, 8))
	w := randomWorld(r)
	st := store.New()
	w.fill(t, st)
	var eps []endpoint.Endpoint
	for i, p := range w.pods {
		eps = append(eps, endpoint.Endpoint{ID: endpoint.ID(i + 1), Namespace: p.ns, Name: p.name})
	}
	st.Read(func(v store.View) {
		set := compile.New(compile.Config{}).Compile(compile.Input{View: v, Node: "n", Endpoints: eps})
		if _, err := classify.Build(set); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for range queries {
			w.ask(t, r, v, set, seed)
		}
	})
}

func (w *world) ask(t testing.TB, r *rand.Rand, v store.View, set *rule.Set, seed uint64) {
	i := r.IntN(len(w.pods))
	p, dir := w.pods[i], rule.Direction(r.IntN(2))
	remote := netip.MustParseAddr(pick(r, outside...))
	if !one(r, 3) {
		remote = pick(r, pick(r, w.pods...).addrs...)
	}
	own := p.addrs[0]
	if remote.Is6() {
		own = p.addrs[1]
	}
	if remote == own {
		return
	}
	pk := packet{src: remote, dst: own, proto: pick[uint8](r, 6, 6, 17, 132), port: pick(r, somePorts...) + uint16(r.IntN(2))}
	if one(r, 4) {
		pk.proto, pk.port = 1, pick[uint16](r, 8, 3)<<8|uint16(r.IntN(2))
		if remote.Is6() {
			pk.proto, pk.port = 58, pick[uint16](r, 128, 3)<<8|uint16(r.IntN(2))
		}
	}
	q := resolve.Query{Src: resolve.End{Addr: remote}, Dst: resolve.End{Pod: store.Key{Namespace: p.ns, Name: p.name}, Addr: own},
		Protocol: policy.Protocol(pk.proto), Port: pk.port}
	if dir == rule.Egress {
		pk.src, pk.dst = own, remote
		q.Src, q.Dst = q.Dst, q.Src
	}
	want := w.judge(p, dir, pk)
	sortRefs(want.refs)
	if seen != nil {
		count(want)
	}
	action, audit, _, cause := ruletest.Evaluate(set, endpoint.ID(i+1), dir, remote, pk.proto, pk.port)
	got := verdict{action == rule.Allow, audit, slices.Clone(set.Causes[cause].Refs)}
	sortRefs(got.refs)
	if !reflect.DeepEqual(got, want) {
		w.fail(t, seed, fmt.Sprintf("%s of %s/%s %+v: compiled %+v, want %+v", dir, p.ns, p.name, pk, got, want))
	}
	d, err := resolve.Explain(v, q, resolve.World{})
	if err != nil {
		t.Fatal(err)
	}
	j := d.Ingress
	if dir == rule.Egress {
		j = d.Egress
	}
	got = verdict{j.Action == rule.Allow || j.Audit, j.Audit, slices.Clone(j.Refs)}
	sortRefs(got.refs)
	if !reflect.DeepEqual(got, want) {
		w.fail(t, seed, fmt.Sprintf("%s of %s/%s %+v: Explain %+v, want %+v", dir, p.ns, p.name, pk, got, want))
	}
}

func sortRefs(refs []rule.PolicyRef) {
	slices.SortFunc(refs, func(a, b rule.PolicyRef) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
}

func (w *world) fail(t testing.TB, seed uint64, what string) {
	t.Helper()
	for _, p := range w.pods {
		t.Logf("pod %+v", *p)
	}
	for _, s := range w.sets {
		t.Logf("set %+v", *s)
	}
	for _, s := range w.services {
		t.Logf("service %+v", *s)
	}
	for name, x := range w.tiers {
		t.Logf("tier %s %v pass %v", name, x.order, x.pass)
	}
	for _, x := range w.policies {
		b, _ := json.Marshal(x.spec())
		t.Logf("%s %s/%s %s", x.kind, x.ns, x.name, b)
	}
	t.Fatalf("seed %d: %s", seed, what)
}

// seen counts what questions came to, so that a test of nothing fails.
var seen map[string]int

func TestRandomWorlds(t *testing.T) {
	worlds := uint64(600)
	if testing.Short() {
		worlds = 100
	}
	seen = map[string]int{}
	for seed := range worlds {
		compareSeed(t, seed, 120)
	}
	t.Log(seen)
	for _, what := range []string{"allowed by a rule", "denied by a rule", "denied by default", "audit", "open"} {
		if seen[what] < int(worlds) {
			t.Errorf("%s: %d times only", what, seen[what])
		}
	}
	seen = nil
}

func count(v verdict) {
	what := "open"
	switch {
	case v.audit:
		what = "audit"
	case v.allow && len(v.refs) > 0:
		what = "allowed by a rule"
	case !v.allow && v.refs[0].Rule == rule.DefaultRule:
		what = "denied by default"
	case !v.allow:
		what = "denied by a rule"
	}
	seen[what]++
}

func FuzzWorlds(f *testing.F) {
	f.Add(uint64(1 << 40))
	f.Fuzz(func(t *testing.T, seed uint64) { compareSeed(t, seed, 60) })
}
