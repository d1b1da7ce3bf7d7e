package store_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func pod(name, app string, ips ...string) *store.Pod {
	return &store.Pod{Namespace: "a", Name: name, Labels: map[string]string{"app": app}, NodeName: "n1", IPs: addrs(ips...)}
}

func key(name string) store.Key { return store.Key{Namespace: "a", Name: name} }

// identity returns what is known of a pod's identity.
func identity(st *store.Store, name string) (id uint64, sum uint64) {
	st.Read(func(v store.View) {
		if x := v.PodIdentity(key(name)); x != nil {
			id, sum = x.ID, x.AddrSum()
		}
	})
	return id, sum
}

func TestIdentities(t *testing.T) {
	st := store.New()
	set := func(p *store.Pod) { st.Update(func(tx *store.Tx) { tx.SetPod(p) }) }
	set(pod("x", "web", "10.0.0.1"))
	set(pod("y", "web", "10.0.0.2"))
	set(pod("z", "db", "10.0.0.3"))
	x, sum := identity(st, "x")
	if y, _ := identity(st, "y"); y != x {
		t.Error("equal pods have two identities")
	}
	if z, _ := identity(st, "z"); z == x {
		t.Error("different pods have one identity")
	}
	set(pod("y", "web", "10.0.0.9"))
	id, moved := identity(st, "x")
	if id != x || moved == sum {
		t.Errorf("an address moved: identity %d, before %d, sum %d, before %d", id, x, moved, sum)
	}
	set(pod("y", "web", "10.0.0.2"))
	if _, back := identity(st, "x"); back != sum {
		t.Error("the address is back, the sum is not")
	}
	done := pod("y", "web", "10.0.0.2")
	done.Phase = store.Finished
	set(done)
	set(pod("x", "web"))
	st.Read(func(v store.View) {
		if v.PodIdentity(key("x")).HasAddrs() || len(v.PodsAt(addrs("10.0.0.2")[0])) > 0 {
			t.Error("a finished pod has an address")
		}
	})
	named := pod("x", "web", "10.0.0.1")
	named.Ports = []store.NamedPort{{Name: "b", Protocol: policy.TCP, Port: 2}, {Name: "a", Protocol: policy.UDP, Port: 1}}
	set(named)
	if id, _ := identity(st, "x"); id == x {
		t.Error("a pod with named ports has the identity of one without")
	}
	st.Read(func(v store.View) {
		id := v.PodIdentity(key("x"))
		if !id.HasPort("a", policy.UDP, 1) || !id.HasPort("a", 0, 1) || id.HasPort("a", policy.TCP, 1) || id.HasPort("a", policy.UDP, 2) {
			t.Errorf("ports %v", id.Ports)
		}
	})
	host := pod("x", "web", "192.168.0.1")
	host.HostNetwork = true
	set(host)
	if id, _ := identity(st, "x"); id != 0 {
		t.Error("a host-network pod has an identity")
	}
	for _, name := range []string{"x", "y", "z"} {
		st.Update(func(tx *store.Tx) { tx.DeletePod(key(name)) })
	}
	st.Read(func(v store.View) {
		namespaces, pods, nodes, policies, identities := v.Counts()
		if namespaces+pods+nodes+policies+identities != 0 {
			t.Errorf("left: %d namespaces, %d pods, %d nodes, %d policies, %d identities", namespaces, pods, nodes, policies, identities)
		}
	})
}

func TestNamespaceLabels(t *testing.T) {
	st := store.New()
	st.Update(func(tx *store.Tx) { tx.SetPod(pod("x", "web", "10.0.0.1")) })
	labels := func() (got map[string]string) {
		st.Read(func(v store.View) { got = v.PodIdentity(key("x")).Entity.NamespaceLabels })
		return got
	}
	if got := labels(); len(got) != 1 || got[store.NameLabel] != "a" {
		t.Errorf("implicit namespace: %v", got)
	}
	before, _ := identity(st, "x")
	st.Update(func(tx *store.Tx) {
		tx.SetNamespace(&store.Namespace{Name: "a", Labels: map[string]string{"k": "v", store.NameLabel: "lie"}})
	})
	if got := labels(); len(got) != 2 || got["k"] != "v" || got[store.NameLabel] != "a" {
		t.Errorf("namespace with labels: %v", got)
	}
	if after, _ := identity(st, "x"); after == before {
		t.Error("the identity did not change with the labels of the namespace")
	}
	st.Update(func(tx *store.Tx) { tx.DeleteNamespace("a") })
	if got := labels(); len(got) != 1 {
		t.Errorf("deleted namespace with a pod: %v", got)
	}
}

func TestNothingNew(t *testing.T) {
	valid := &policy.Policy{Origin: policy.Origin{Kind: "NetworkPolicy", Namespace: "a", Name: "np"}}
	same := *valid
	st := store.New()
	write := func(p *policy.Policy) bool {
		return st.Update(func(tx *store.Tx) {
			tx.SetPod(pod("x", "web", "10.0.0.1"))
			tx.SetNamespace(&store.Namespace{Name: "a", Labels: map[string]string{"k": "v"}})
			tx.SetNode(&store.Node{Name: "n1", Addrs: addrs("192.168.0.1")})
			tx.SetPolicy(p)
			tx.DeletePod(key("other"))
			tx.DeleteNode("other")
			tx.DeleteNamespace("other")
			tx.DeletePolicy(policy.Origin{Name: "other"})
		})
	}
	if !write(valid) || write(&same) {
		t.Error("the first write has to change something, the second nothing")
	}
	if got := st.Generation(); got != 1 {
		t.Errorf("generation %d", got)
	}
	<-st.Changed()
	select {
	case <-st.Changed():
		t.Error("woken for nothing")
	default:
	}
}

func TestPolicyVersions(t *testing.T) {
	o := policy.Origin{Kind: "NetworkPolicy", Namespace: "a", Name: "np"}
	valid := &policy.Policy{Origin: o, Order: 1}
	newer := &policy.Policy{Origin: o, Order: 2}
	rejected := &policy.Policy{Origin: o, Rejected: true}
	st := store.New()
	steps := []struct {
		set  *policy.Policy
		want []*policy.Policy
	}{
		{rejected, []*policy.Policy{rejected}},
		{valid, []*policy.Policy{valid}},
		{rejected, []*policy.Policy{valid, rejected}},
		{newer, []*policy.Policy{newer}},
	}
	for i, s := range steps {
		st.Update(func(tx *store.Tx) { tx.SetPolicy(s.set) })
		st.Read(func(v store.View) {
			if got := slices.Collect(v.Policies("a")); !slices.Equal(got, s.want) {
				t.Errorf("step %d: %+v", i, got)
			}
		})
	}
}

// TestTierOfParts has the parts of a policy follow a tier that the first of them
// is not in.
func TestTierOfParts(t *testing.T) {
	o := policy.Origin{Kind: "NetworkPolicy", Namespace: "a", Name: "np"}
	part := &policy.Policy{Origin: o, Tier: policy.Tier{Name: "x"}, TierObject: true}
	st := store.New()
	orders := func() (got []float64) {
		st.Read(func(v store.View) {
			for p := range v.PoliciesOf(o) {
				got = append(got, p.Tier.Order)
			}
		})
		return got
	}
	st.Update(func(tx *store.Tx) {
		tx.SetPolicy(&policy.Policy{Origin: o, Tier: policy.TierNetworkPolicy, Parts: []*policy.Policy{part}})
	})
	st.Update(func(tx *store.Tx) { tx.SetTier(&store.Tier{Name: "x", Order: 7}) })
	if got, want := orders(), []float64{policy.TierNetworkPolicy.Order, 7}; !slices.Equal(got, want) {
		t.Errorf("with the tier: %v, want %v", got, want)
	}
	st.Update(func(tx *store.Tx) { tx.DeleteTier("x") })
	if got, want := orders(), []float64{policy.TierNetworkPolicy.Order, policy.LastOrder}; !slices.Equal(got, want) {
		t.Errorf("without it: %v, want %v", got, want)
	}
}

func TestNodeAddrs(t *testing.T) {
	host := pod("h", "x", "192.168.0.7")
	host.HostNetwork = true
	st := store.New()
	nodes := func() (got []netip.Addr) {
		st.Read(func(v store.View) { got = v.NodeAddrs("n1") })
		return got
	}
	st.Update(func(tx *store.Tx) { tx.SetPod(host) })
	if got := nodes(); !slices.Equal(got, addrs("192.168.0.7")) {
		t.Errorf("from a host-network pod: %v", got)
	}
	st.Update(func(tx *store.Tx) { tx.SetNode(&store.Node{Name: "n1", Addrs: addrs("192.168.0.7", "192.168.0.1")}) })
	if got := nodes(); !slices.Equal(got, addrs("192.168.0.1", "192.168.0.7")) {
		t.Errorf("from both: %v", got)
	}
	moved := *host
	moved.NodeName = "n2"
	st.Update(func(tx *store.Tx) {
		tx.SetPod(&moved)
		tx.SetNode(&store.Node{Name: "n1", Addrs: addrs("192.168.0.1")})
	})
	if got := nodes(); !slices.Equal(got, addrs("192.168.0.1")) {
		t.Errorf("after the pod moved: %v", got)
	}
	st.Update(func(tx *store.Tx) { tx.DeleteNode("n1") })
	if got := nodes(); len(got) > 0 {
		t.Errorf("after the node has gone: %v", got)
	}
}
