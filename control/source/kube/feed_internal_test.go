package kube

import (
	"log/slog"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
)

// newSource is a source without a server: feeds are written by the test.
func newSource() *Source {
	return &Source{store: store.New(), log: slog.New(slog.DiscardHandler), changed: func() {},
		feeds: map[string]*feed{}, notes: map[string]string{}, rejected: map[policy.Origin]verdict{}}
}

// While one feed is asked whether it has synced, which may take long, others are
// found that have not: the cluster isn't known.
func TestFoundWhileAsked(t *testing.T) {
	s := newSource()
	pods, custom := s.newFeed("pods", "Pod", nil), s.newFeed("customs", "Custom", nil)
	pods.synced = true
	s.addFeed(pods)
	pods.mu.Lock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.noteSynced()
	}()
	time.Sleep(20 * time.Millisecond) // until it waits for the lock, most probably
	s.addFeed(custom)
	s.mu.Lock()
	s.discovered = true
	s.mu.Unlock()
	pods.mu.Unlock()
	<-done
	if s.State().Synced {
		t.Error("synced, and what was found meanwhile is not")
	}
	if s.noteSynced(); s.State().Synced {
		t.Error("synced, and one feed is not")
	}
	custom.synced = true
	if s.noteSynced(); !s.State().Synced {
		t.Error("all feeds have synced, and the cluster is not known")
	}
}
