package calico_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/publish"
	"github.com/sluice-net/sluice/control/source/object"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	wire "github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// change changes one thing of a world, and removes from the store what has gone.
func (w *world) change(r *rand.Rand, st *store.Store, step int) {
	gone := func(o policy.Origin) { st.Update(func(tx *store.Tx) { object.Remove(tx, o) }) }
	switch r.IntN(8) {
	case 0:
		name := pick(r, "bar", "foo", "zoo")
		if one(r, 3) {
			delete(w.tiers, name)
			gone(policy.Origin{Kind: "Tier", Name: name})
			return
		}
		o := pick(r, 1.0, 3, 2_000_000)
		w.tiers[name] = &tier{order: &o, pass: one(r, 2)}
	case 1:
		if len(w.sets) > 0 && one(r, 2) {
			s := w.sets[0]
			w.sets = w.sets[1:]
			kind := "NetworkSet"
			if s.ns == "" {
				kind = "GlobalNetworkSet"
			}
			gone(policy.Origin{Kind: kind, Namespace: s.ns, Name: s.name})
			return
		}
		w.sets = append(w.sets, &set{ns: pick(r, "", "a"), name: fmt.Sprintf("new-%d", step), labels: randomLabels(r),
			nets: []netip.Prefix{netip.MustParsePrefix(pick(r, slices.Concat(someNets4, someNets6)...))}})
	case 2:
		w.accounts[[2]string{pick(r, "a", "b"), "sa1"}] = randomLabels(r)
	case 3:
		ns := pick(r, "a", "b")
		w.namespaces[ns] = randomLabels(r)
		w.namespaces[ns]["kubernetes.io/metadata.name"] = ns
	case 4:
		pick(r, w.pods...).labels = randomLabels(r)
	case 5:
		p := pick(r, w.pods...)
		p.addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(20 + step)}), netip.MustParseAddr(fmt.Sprintf("fd00::%x", 32+step))}
	case 6:
		if len(w.policies) > 0 {
			x := w.policies[0]
			w.policies = w.policies[1:]
			gone(policy.Origin{Kind: x.kind, Namespace: x.ns, Name: x.name})
		}
	default:
		w.policies = append(w.policies, w.randomPolicy(r, 100+step))
	}
}

// TestChurn changes worlds bit by bit: the table that is brought up to date has
// to answer as one who looks at everything.
func TestChurn(t *testing.T) {
	worlds := uint64(60)
	if testing.Short() {
		worlds = 15
	}
	for seed := range worlds {
		churn(t, seed)
	}
}

func churn(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 9))
	w := randomWorld(r)
	st, p := store.New(), publish.New(compile.Config{})
	var eps []endpoint.Endpoint
	for i, x := range w.pods {
		eps = append(eps, endpoint.Endpoint{ID: endpoint.ID(i + 1), Namespace: x.ns, Name: x.name})
	}
	for step := range 25 {
		if step > 0 {
			w.change(r, st, step)
		}
		w.fill(t, st)
		var table *classify.Table
		st.Read(func(v store.View) {
			var err error
			if table, err = p.Next(compile.Input{View: v, Endpoints: eps, Node: "n"}); err != nil {
				t.Fatal(err)
			}
		})
		for range 60 {
			w.askTable(t, r, table, seed, step)
		}
	}
}

func (w *world) askTable(t *testing.T, r *rand.Rand, table *classify.Table, seed uint64, step int) {
	i, dir := r.IntN(len(w.pods)), rule.Direction(r.IntN(2))
	p := w.pods[i]
	remote := netip.MustParseAddr(pick(r, outside...))
	if !one(r, 3) {
		remote = pick(r, pick(r, w.pods...).addrs...)
	}
	own := p.addrs[0]
	if remote.Is6() {
		own = p.addrs[1]
	}
	pk := packet{src: remote, dst: own, proto: pick[uint8](r, 6, 17), port: pick(r, somePorts...)}
	if dir == rule.Egress {
		pk.src, pk.dst = own, remote
	}
	if remote == own {
		return
	}
	want := w.judge(p, dir, pk)
	sortRefs(want.refs)
	q := [1]classify.Query{{Remote: wire.AddrFrom(remote), Row: table.Row(endpoint.ID(i+1), dir), Proto: wire.Proto(pk.proto), Port: pk.port}}
	var out [1]classify.Verdict
	table.Classify(q[:], out[:])
	got := verdict{out[0].Allowed(), out[0].Audit(), slices.Clone(table.Causes()[table.Cause(out[0])].Refs)}
	sortRefs(got.refs)
	if !reflect.DeepEqual(got, want) {
		w.fail(t, seed, fmt.Sprintf("step %d: %s of %s/%s %+v: table %+v, want %+v", step, dir, p.ns, p.name, pk, got, want))
	}
}
