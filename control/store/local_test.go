package store_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/control/store"
)

// at lists the addresses at which the store knows a pod.
func at(st *store.Store, name string) (out []netip.Addr) {
	st.Read(func(v store.View) {
		if p := v.Pod(key(name)); p != nil {
			out = p.Addrs()
		}
	})
	return out
}

// TestLocalAddresses says in every order what a pod's sandbox and its status
// know, and which of them holds.
func TestLocalAddresses(t *testing.T) {
	set := func(p *store.Pod) func(*store.Tx) { return func(tx *store.Tx) { tx.SetPod(p) } }
	told := func(ips ...string) func(*store.Tx) {
		return func(tx *store.Tx) { tx.SetLocal(key("x"), store.Local{Addrs: addrs(ips...)}) }
	}
	forget := func(tx *store.Tx) { tx.DeleteLocal(key("x")) }
	gone := func(tx *store.Tx) { tx.DeletePod(key("x")) }
	host, done := pod("x", "web"), pod("x", "web")
	host.HostNetwork, done.Phase = true, store.Finished
	for _, c := range []struct {
		name  string
		steps []func(*store.Tx)
		want  []netip.Addr
	}{
		{"told only", []func(*store.Tx){told("10.0.0.1")}, nil},
		{"told, then known", []func(*store.Tx){told("10.0.0.1"), set(pod("x", "web"))}, addrs("10.0.0.1")},
		{"known, then told", []func(*store.Tx){set(pod("x", "web")), told("10.0.0.1")}, addrs("10.0.0.1")},
		{"relabelled", []func(*store.Tx){told("10.0.0.1"), set(pod("x", "web")), set(pod("x", "db"))}, addrs("10.0.0.1")},
		{"told again", []func(*store.Tx){set(pod("x", "web")), told("10.0.0.1"), told("10.0.0.2")}, addrs("10.0.0.2")},
		{"forgotten", []func(*store.Tx){set(pod("x", "web")), told("10.0.0.1"), forget}, nil},
		{"status decides", []func(*store.Tx){told("10.0.0.1"), set(pod("x", "web", "10.0.0.9"))}, addrs("10.0.0.9")},
		{"status decides, also forgotten", []func(*store.Tx){told("10.0.0.1"), set(pod("x", "web", "10.0.0.9")), forget}, addrs("10.0.0.9")},
		{"host's network", []func(*store.Tx){told("10.0.0.1"), set(host)}, nil},
		{"finished", []func(*store.Tx){told("10.0.0.1"), set(pod("x", "web")), set(done)}, nil},
		{"gone", []func(*store.Tx){told("10.0.0.1"), set(pod("x", "web")), gone}, nil},
		{"gone and back", []func(*store.Tx){told("10.0.0.1"), set(pod("x", "web")), gone, set(pod("x", "web"))}, addrs("10.0.0.1")},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := store.New()
			for _, step := range c.steps {
				st.Update(step)
			}
			if got := at(st, "x"); !slices.Equal(got, c.want) {
				t.Errorf("addresses %v, want %v", got, c.want)
			}
			st.Read(func(v store.View) {
				for _, ip := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.9"} {
					a := netip.MustParseAddr(ip)
					if got, want := len(v.PodsAt(a)) > 0, slices.Contains(c.want, a); got != want {
						t.Errorf("a pod at %v: %v, want %v", a, got, want)
					}
				}
			})
		})
	}
}

// TestLocalIsNoChange sees that a status that names what the sandbox said wakes
// nobody.
func TestLocalIsNoChange(t *testing.T) {
	st := store.New()
	st.Update(func(tx *store.Tx) { tx.SetLocal(key("x"), store.Local{Addrs: addrs("10.0.0.1")}) })
	if !st.Update(func(tx *store.Tx) { tx.SetPod(pod("x", "web")) }) {
		t.Error("a new pod is no change")
	}
	if st.Update(func(tx *store.Tx) { tx.SetPod(pod("x", "web", "10.0.0.1")) }) {
		t.Error("what was known is a change")
	}
	if st.Update(func(tx *store.Tx) { tx.DeleteLocal(key("x")) }) {
		t.Error("to forget what the status says as well is a change")
	}
	if got := at(st, "x"); !slices.Equal(got, addrs("10.0.0.1")) {
		t.Errorf("addresses %v", got)
	}
}
