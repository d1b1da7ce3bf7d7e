package kube_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/kube"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
	"github.com/sluice-net/sluice/control/store"
)

// patience bounds what a test waits for. It says nothing about speed.
const patience = time.Minute

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// eventually polls until something holds.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// follower is a source that runs, and its store.
type follower struct {
	testing.TB
	*kube.Source
	store *store.Store
	stop  func()
}

// follow runs a source until the test ends.
func follow(tb testing.TB, cfg kube.Config) *follower {
	tb.Helper()
	if cfg.NodeName == "" {
		cfg.NodeName = "here"
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	st := store.New()
	src, err := kube.New(cfg, st, slog.New(slog.NewTextHandler(tb.Output(), nil)))
	must(tb, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = src.Run(ctx, func() {})
	}()
	f := &follower{TB: tb, Source: src, store: st, stop: func() { cancel(); <-done }}
	tb.Cleanup(f.stop)
	return f
}

func (f *follower) synced() *follower {
	f.Helper()
	eventually(f, "synced", func() bool { return f.State().Synced })
	return f
}

// has waits until the store has a policy.
func (f *follower) has(o policy.Origin) *policy.Policy {
	f.Helper()
	var p *policy.Policy
	eventually(f, o.String()+" known", func() bool { p = f.policy(o); return p != nil })
	return p
}

// lacks waits until the store doesn't have a policy.
func (f *follower) lacks(o policy.Origin) {
	f.Helper()
	eventually(f, o.String()+" gone", func() bool { return f.policy(o) == nil })
}

// policy returns what is in force last of a policy.
func (f *follower) policy(o policy.Origin) (last *policy.Policy) {
	f.store.Read(func(v store.View) {
		for p := range v.Policies(o.Namespace) {
			if p.Origin == o {
				last = p
			}
		}
	})
	return last
}

func (f *follower) pod(namespace, name string) (p *store.Pod) {
	f.store.Read(func(v store.View) { p = v.Pod(store.Key{Namespace: namespace, Name: name}) })
	return p
}

// contents spells out all that the store holds.
func contents(st *store.Store) map[string]any {
	out := map[string]any{}
	st.Read(func(v store.View) {
		for p := range v.Pods() {
			out["pod "+p.Key().String()] = p
		}
		for n := range v.Nodes() {
			out["node "+n.Name] = n
		}
		for ns := range v.Namespaces() {
			out["namespace "+ns] = v.NamespaceLabels(ns)
		}
		for p := range v.AllPolicies() {
			out[fmt.Sprintf("policy %s %v", p.Origin, p.Rejected)] = p
		}
	})
	return out
}

// sameAsFresh waits until the store holds what a source that starts now finds.
func (f *follower) sameAsFresh(server *kubetest.Server) {
	f.Helper()
	fresh := follow(f.TB, kube.Config{Kubeconfig: server.Kubeconfig(kubetest.AdminToken, "")}).synced()
	defer fresh.stop()
	var diff []string
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got, want := contents(f.store), contents(fresh.store)
		diff = nil
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if !reflect.DeepEqual(got[k], want[k]) {
				diff = append(diff, fmt.Sprintf("%s: %+v, want %+v", k, got[k], want[k]))
			}
			delete(got, k)
		}
		for k := range got {
			diff = append(diff, k+" is left")
		}
		if len(diff) == 0 {
			return
		}
		if time.Now().After(end) {
			f.Fatalf("differs from a fresh start:\n%s", strings.Join(diff[:min(len(diff), 20)], "\n"))
		}
	}
}

func podYAML(namespace, name, node, labels, ip string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {namespace: %s, name: %s, labels: {%s}}
spec:
  nodeName: %s
  containers: [{name: c, image: none, ports: [{name: web, containerPort: 80}]}]
`, namespace, name, labels, node)
}

func npYAML(namespace, name, spec string) string {
	return fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: %s, name: %s}\nspec: %s\n", namespace, name, spec)
}

func namespaceYAML(name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", name)
}

func np(namespace, name string) policy.Origin {
	return policy.Origin{Kind: "NetworkPolicy", Namespace: namespace, Name: name}
}
