package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// A pod's next sandbox comes while its last one is forgotten: what it says stays.
func TestUntold(t *testing.T) {
	a := &Agent{store: store.New(), sandboxes: newSandboxes(t.TempDir())}
	next := api.Sandbox{Attachment: api.Attachment{ContainerID: "c", IfName: "eth0"}, Namespace: "x", Pod: "p",
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	done := make(chan struct{})
	a.store.Update(func(tx *store.Tx) {
		tx.SetPod(&store.Pod{Namespace: "x", Name: "p"})
		go func() {
			defer close(done)
			a.untold(podOf(&next))
		}()
		time.Sleep(20 * time.Millisecond) // until it waits for the store, most probably
		if err := a.sandboxes.add(next); err != nil {
			t.Fatal(err)
		}
		tx.SetLocal(podOf(&next), store.Local{Addrs: next.Addresses})
	})
	<-done
	has := func() (has bool) {
		a.store.Read(func(v store.View) { has = v.HasLocal(podOf(&next)) })
		return has
	}
	if !has() {
		t.Error("the addresses of a sandbox that is there are forgotten")
	}
	a.sandboxes.remove(&next)
	if a.untold(podOf(&next)); has() {
		t.Error("the addresses of a sandbox that has gone are not forgotten")
	}
}

// A runtime that collects garbage often doesn't put off the look after all sandboxes.
func TestSweepDue(t *testing.T) {
	a := &Agent{sandboxes: newSandboxes(t.TempDir())}
	at := api.Attachment{ContainerID: "c", IfName: "eth0"}
	if err := a.sandboxes.add(api.Sandbox{Attachment: at}); err != nil {
		t.Fatal(err)
	}
	a.sandboxes.swept = time.Now().Add(-2 * sandboxSweep)
	if err := a.KeepSandboxes(t.Context(), []api.Attachment{at}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 0} {
		if due, _ := a.sandboxes.due(sandboxSweep); len(due) != want {
			t.Errorf("%d sandboxes to look after, want %d", len(due), want)
		}
	}
}

// A container starts again, by its old ID, while its last link is looked after: what
// the plugin says of the new one stays.
func TestSandboxAgain(t *testing.T) {
	a := &Agent{store: store.New(), sandboxes: newSandboxes(t.TempDir())}
	was := api.Sandbox{Attachment: api.Attachment{ContainerID: "c", IfName: "eth0"}, Link: "veth1", Ifindex: 2,
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	is := was
	is.Link, is.Ifindex = "lo", 1 // one that is there
	for _, s := range []*api.Sandbox{&was, &is} {
		if err := a.sandboxes.add(*s); err != nil {
			t.Fatal(err)
		}
		a.told(s, link.Found{Link: endpoint.Link{Name: s.Link, Ifindex: s.Ifindex}})
	}
	if a.sandboxes.remove(&was) {
		t.Error("the sandbox that is there is forgotten")
	}
	if again := newSandboxes(a.sandboxes.dir).load(); len(again) != 1 || again[0].Link != is.Link {
		t.Errorf("the next agent would know of %v", again)
	}
	a.finder.Forget(tellerOf(was.Attachment), 2)
	if found, _ := a.finder.Told(is.Addresses); len(found) != 1 {
		t.Error("what was said of the new link is forgotten with the old one")
	}
	if !a.sandboxes.remove(&is) || a.sandboxes.remove(&is) {
		t.Error("a sandbox that has gone is not forgotten, or twice")
	}
	a.finder.Forget(tellerOf(is.Attachment), is.Ifindex)
	if found, _ := a.finder.Told(is.Addresses); len(found) != 0 {
		t.Error("what was said of a link that has gone is not forgotten")
	}
}
