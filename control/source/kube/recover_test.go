package kube_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/source/kube"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
	"github.com/sluice-net/sluice/control/store"
)

// gate is a TCP proxy in front of the server, which a test can shut.
type gate struct {
	net.Listener
	to    string
	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]bool
}

func newGate(tb testing.TB, to string) *gate {
	tb.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(tb, err)
	g := &gate{Listener: l, to: to, conns: map[net.Conn]bool{}}
	go g.serve()
	tb.Cleanup(func() { l.Close(); g.close() })
	return g
}

func (g *gate) serve() {
	for {
		in, err := g.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp4", g.to)
		g.mu.Lock()
		if err != nil || g.shut {
			in.Close()
			if out != nil {
				out.Close()
			}
			g.mu.Unlock()
			continue
		}
		g.conns[in], g.conns[out] = true, true
		g.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				defer pair[0].Close()
				defer pair[1].Close()
				buf := make([]byte, 1<<15)
				for {
					n, err := pair[0].Read(buf)
					if _, werr := pair[1].Write(buf[:n]); err != nil || werr != nil {
						return
					}
				}
			}()
		}
	}
}

// close cuts all connections, and lets no new ones through until open.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for c := range g.conns {
		c.Close()
	}
	clear(g.conns)
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}

// populate writes a small cluster.
func populate(s *kubetest.Server, namespaces, pods int) {
	for n := range namespaces {
		ns := fmt.Sprintf("ns-%d", n)
		s.Apply(namespaceYAML(ns))
		for p := range pods {
			s.Apply(podYAML(ns, fmt.Sprintf("p-%d", p), "here", fmt.Sprintf("app: a%d", p%3), ""))
		}
		s.Apply(npYAML(ns, "deny", "{podSelector: {}}"))
		s.Apply(npYAML(ns, "allow", "{podSelector: {matchLabels: {app: a1}}, ingress: [{from: [{podSelector: {}}]}]}"))
	}
}

// churn changes, creates and deletes some of it.
func churn(s *kubetest.Server, round int) {
	s.Apply(podYAML("ns-0", "p-0", "here", fmt.Sprintf("app: r%d", round), ""))
	s.Apply(podYAML("ns-0", fmt.Sprintf("new-%d", round), "there", "app: a1", ""))
	s.Delete(podYAML("ns-1", fmt.Sprintf("p-%d", round), "here", "", ""))
	s.Apply(npYAML("ns-0", "deny", fmt.Sprintf("{podSelector: {matchLabels: {app: r%d}}}", round)))
	s.Apply(npYAML("ns-0", fmt.Sprintf("np-%d", round), "{podSelector: {}, policyTypes: [Egress]}"))
	if round == 0 {
		s.Delete(npYAML("ns-1", "deny", "{podSelector: {}}"))
	}
}

// healthy waits until all watches stand.
func (f *follower) healthy() {
	f.Helper()
	eventually(f, "all watches stand", func() bool {
		for _, w := range f.State().Watches {
			if !w.Healthy {
				return false
			}
		}
		return true
	})
}

func TestRecovery(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t, kubetest.Options{})
	s.ApplyFile(cnpDefinition(t))
	s.Apply(cnpYAML)
	populate(s, 3, 6)
	g := newGate(t, s.Address())
	f := follow(t, kube.Config{Kubeconfig: s.Kubeconfig(kubetest.AdminToken, g.Addr().String())}).synced()
	f.sameAsFresh(s)

	t.Run("server away", func(t *testing.T) {
		before := contents(f.store)
		lost := time.Now()
		g.close()
		eventually(t, "staleness known", func() bool {
			for _, w := range f.State().Watches {
				if w.Healthy || !w.Synced || w.Current.Before(lost) || w.Err == "" {
					return false
				}
			}
			return len(f.State().Notes) > 0
		})
		churn(s, 0)
		if after := contents(f.store); len(after) != len(before) {
			t.Errorf("%d objects while the server is away, %d before", len(after), len(before))
		}
		if !f.State().Synced {
			t.Error("what was known is not known any more")
		}
		g.open()
		f.healthy()
		f.sameAsFresh(s)
		if notes := f.State().Notes; len(notes) > 0 {
			t.Errorf("notes: %v", notes)
		}
	})

	t.Run("history compacted meanwhile", func(t *testing.T) {
		g.close()
		churn(s, 1)
		// A server that starts anew knows no history; etcd has none either.
		s.Compact()
		s.StopAPI()
		s.StartAPI()
		churn(s, 2)
		g.open()
		f.healthy()
		f.sameAsFresh(s)
	})

	t.Run("server restarts under open watches", func(t *testing.T) {
		s.StopAPI()
		time.Sleep(100 * time.Millisecond)
		s.StartAPI()
		churn(s, 3)
		f.healthy()
		f.sameAsFresh(s)
		if f.policy(np("ns-2", "deny")) == nil {
			t.Error("a policy is lost")
		}
	})

	t.Run("connections cut again and again", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				g.close()
				g.open()
				time.Sleep(30 * time.Millisecond)
			}
		}()
		for i := range 20 {
			s.Apply(podYAML("ns-2", fmt.Sprintf("cut-%d", i), "here", "app: a1", ""))
			s.Apply(podYAML("ns-2", "p-1", "here", fmt.Sprintf("app: c%d", i), ""))
		}
		cancel()
		<-done
		f.healthy()
		f.sameAsFresh(s)
	})
}

// An agent that starts while the server is away publishes nothing, and all
// once it is there.
func TestStartWithoutServer(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t, kubetest.Options{})
	populate(s, 1, 2)
	g := newGate(t, s.Address())
	g.close()
	f := follow(t, kube.Config{Kubeconfig: s.Kubeconfig(kubetest.AdminToken, g.Addr().String())})
	eventually(t, "noted", func() bool { return len(f.State().Notes) > 3 })
	if st := f.State(); st.Synced {
		t.Fatal("synced with nothing")
	}
	g.open()
	f.synced().sameAsFresh(s)
}

// A kind that may not be read keeps the first publish back, and says so, while
// this node's pods are known.
func TestHalfAPicture(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t, kubetest.Options{})
	s.ApplyFile("testdata/crds.yaml")
	s.Apply(anpYAML)
	populate(s, 1, 2)
	s.Apply(`apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: most}
rules:
- {apiGroups: ["", networking.k8s.io, discovery.k8s.io, apiextensions.k8s.io], resources: ["*"], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: most}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: most}
subjects: [{kind: ServiceAccount, namespace: default, name: half}]
`)
	f := follow(t, kube.Config{Kubeconfig: s.Kubeconfig(s.ServiceAccount("default", "half"), "")})
	eventually(t, "pods known", func() bool { return f.pod("ns-0", "p-1") != nil })
	eventually(t, "noted", func() bool {
		for _, w := range f.State().Watches {
			if w.Resource == "adminnetworkpolicies.policy.networking.k8s.io" && w.Err != "" {
				return true
			}
		}
		return false
	})
	if f.State().Synced {
		t.Error("synced without a kind that it may not read")
	}
	s.Apply(`apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: most}
rules:
- {apiGroups: ["", networking.k8s.io, discovery.k8s.io, apiextensions.k8s.io, policy.networking.k8s.io], resources: ["*"], verbs: [get, list, watch]}
`)
	f.synced()
	var n int
	f.store.Read(func(v store.View) { _, _, _, n, _ = v.Counts() })
	if n != 3 {
		t.Errorf("%d policies", n)
	}
}
