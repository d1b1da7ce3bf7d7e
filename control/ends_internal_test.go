package control

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// A pod's last packets are told of when it has gone: it is named even if nothing
// was known of it before, until somebody else has the address, or for a while.
func TestEndsThatHaveGone(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	set := func(st *store.Store, name string, phase store.Phase, a netip.Addr) {
		st.Update(func(tx *store.Tx) {
			tx.SetPod(&store.Pod{Namespace: "a", Name: name, Phase: phase, IPs: []netip.Addr{a}, Labels: map[string]string{"app": name},
				Workload: store.Workload{Kind: "Deployment", Name: name + "-set"}})
		})
	}
	remove := func(st *store.Store, name string) {
		st.Update(func(tx *store.Tx) { tx.DeletePod(store.Key{Namespace: "a", Name: name}) })
	}
	who := func(e *ends) string { return e.find(0, packet.AddrFrom(addr)).Pod }
	for name, seen := range map[string]bool{"seen before": true, "not seen before": false} {
		t.Run(name, func(t *testing.T) {
			st := store.New()
			e := newEnds(st, "n")
			set(st, "x", store.Alive, addr)
			if seen && who(e) != "x" {
				t.Fatalf("the pod is %q", who(e))
			}
			e.find(0, packet.AddrFrom(netip.MustParseAddr("10.9.9.9"))) // the store was looked at meanwhile
			remove(st, "x")
			end := e.find(0, packet.AddrFrom(addr))
			if end.Pod != "x" || end.Workload != "x-set" || !slices.Contains(end.Labels, "k8s:app=x") {
				t.Fatalf("it has gone, and is %+v", end)
			}
			set(st, "y", store.Alive, addr)
			if who(e) != "y" {
				t.Errorf("the next one is %q", who(e))
			}
			set(st, "y", store.Finished, addr)
			if who(e) != "y" {
				t.Errorf("it has finished, and is %q", who(e))
			}
			e.known[addr].gone = time.Now().Add(-2 * keepGone)
			if who(e) != "" {
				t.Errorf("long after it is %q", who(e))
			}
		})
	}
}

// What the store has forgotten is found out by looking at all pods.
func TestEndsAfterMuchChange(t *testing.T) {
	st := store.New()
	e := newEnds(st, "n")
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	pods := func(from, to int) {
		st.Update(func(tx *store.Tx) {
			for i := from; i < to; i++ {
				tx.SetPod(&store.Pod{Namespace: "a", Name: fmt.Sprint("p", i), IPs: []netip.Addr{addr(i)}})
			}
		})
	}
	pods(1, 2)
	e.find(0, packet.AddrFrom(addr(9999)))
	for i := range 40 {
		pods(2+i*1000, 2+(i+1)*1000)
	}
	st.Update(func(tx *store.Tx) {
		tx.DeletePod(store.Key{Namespace: "a", Name: "p1"})
		tx.DeletePod(store.Key{Namespace: "a", Name: "p2"})
	})
	if got := e.find(0, packet.AddrFrom(addr(1))).Pod; got != "p1" {
		t.Errorf("the pod that was known is %q", got)
	}
	if got := e.find(0, packet.AddrFrom(addr(30_000))).Pod; got != "p30000" || len(e.pods) != 40_000-1+1-1 {
		t.Errorf("%q, %d pods known", got, len(e.pods))
	}
}

// Pods that have gone for long leave nothing behind, however many there were; those
// that are there keep their identities.
func TestEndsForget(t *testing.T) {
	st := store.New()
	e := newEnds(st, "n")
	pod := func(name string, a netip.Addr) {
		st.Update(func(tx *store.Tx) {
			tx.SetPod(&store.Pod{Namespace: "a", Name: name, IPs: []netip.Addr{a}, Labels: map[string]string{"job": name}})
		})
	}
	look := func(a netip.Addr) *observe.End { return e.find(0, packet.AddrFrom(a)) }
	lasting := netip.MustParseAddr("10.200.0.1")
	pod("lasting", lasting)
	id := look(lasting).Identity
	for i := range 4 * fewestIDs {
		name, a := fmt.Sprint("job-", i), netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		pod(name, a)
		look([...]netip.Addr{a, lasting}[i%2]) // every other one is heard of when it has gone
		st.Update(func(tx *store.Tx) { tx.DeletePod(store.Key{Namespace: "a", Name: name}) })
		look(lasting)
		if k := e.known[a]; k.end.Pod != name || k.gone.IsZero() {
			t.Fatalf("%s has gone, and is %+v", name, k)
		}
		e.known[a].gone = time.Now().Add(-2 * keepGone)
	}
	if len(e.ids) > fewestIDs || len(e.taken) != len(e.ids) || len(e.known) > fewestIDs {
		t.Errorf("%d identities, %d numbers, %d addresses are kept", len(e.ids), len(e.taken), len(e.known))
	}
	if got := e.ids[strings.Join(look(lasting).Labels, ";")]; got != id || look(lasting).Identity != id {
		t.Errorf("who is there was %d, and is %d and %d", id, look(lasting).Identity, got)
	}
}

// The labels of the agent's node are those of now, sorted; another node's are not.
func TestNodeLabels(t *testing.T) {
	a := &Agent{cfg: Config{NodeName: "n"}, store: store.New()}
	if l := a.NodeLabels(); len(l) != 0 {
		t.Errorf("labels of a node that is not known: %v", l)
	}
	set := func(name string, labels map[string]string) {
		a.store.Update(func(tx *store.Tx) { tx.SetNode(&store.Node{Name: name, Labels: labels}) })
	}
	set("other", map[string]string{"zone": "x"})
	for _, labels := range []map[string]string{{"zone": "b", "arch": "amd64"}, {"zone": "c"}, nil} {
		set("n", labels)
		var want []string
		for _, k := range slices.Sorted(maps.Keys(labels)) {
			want = append(want, k+"="+labels[k])
		}
		for range 2 {
			if l := a.NodeLabels(); !slices.Equal(l, want) {
				t.Errorf("labels %v, want %v", l, want)
			}
		}
	}
}
