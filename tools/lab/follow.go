package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// lookInterval is how often the manifests are looked at; reading a folder
	// of some dozen files takes well under a millisecond.
	lookInterval = 100 * time.Millisecond
	// restartDelay is how long an agent that died stays dead, long enough to
	// look at a node without one.
	restartDelay = 5 * time.Second
)

// Follow keeps the lab in step with its manifests until ctx ends. Manifests
// that can't be read leave the pods as they are.
func (l *Lab) Follow(ctx context.Context) error {
	var waiting waiter
	defer waiting.stop()
	tick := time.Tick(lookInterval)
	agentDone := l.agent.done
	var restart <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-agentDone:
			l.opts.Message(fmt.Sprintf("the agent ended (%v); starting it again in %v", l.agent.err, restartDelay))
			agentDone, restart = nil, time.After(restartDelay)
		case <-restart:
			if err := l.restartAgent(); err != nil {
				return err
			}
			agentDone, restart = l.agent.done, nil
			waiting.start(ctx, l.expectation(), l.tellEnforced)
		case <-tick:
			changed, err := l.refresh(ctx)
			if err != nil {
				return err
			}
			if changed {
				waiting.start(ctx, l.expectation(), l.tellEnforced)
			}
		}
	}
}

func (l *Lab) restartAgent() error {
	l.node.Lock()
	defer l.node.Unlock()
	if err := l.startAgent(); err != nil {
		return err
	}
	return l.publish()
}

// Refresh applies the manifests as they are now, for an owner that doesn't
// Follow, and returns when the agent enforces them.
func (l *Lab) Refresh(ctx context.Context) error {
	if _, err := l.refresh(ctx); err != nil {
		return err
	}
	return l.WaitEnforced(ctx)
}

// refresh applies the manifests if they changed. Faults of the manifests are
// told, not returned.
func (l *Lab) refresh(ctx context.Context) (changed bool, err error) {
	l.node.Lock()
	defer l.node.Unlock()
	m, err := readManifests(l.opts.Manifests)
	if err != nil {
		l.tell(err)
		return false, nil
	}
	if m.sum == l.sum {
		return false, nil
	}
	c, err := m.cluster()
	if err != nil {
		// The agent judges for itself what of the policies it can read.
		l.tell(fmt.Errorf("pods stay as they are: %w", err), l.copyManifests(m))
	} else {
		l.tell(l.apply(ctx, m, c.pods))
	}
	return true, l.publish()
}

// waiter waits, beside Follow, for the agent to enforce the last change.
type waiter struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// start gives up waiting for an earlier change.
func (w *waiter) start(ctx context.Context, e expectation, tell func(context.Context, expectation)) {
	w.stop()
	ctx, w.cancel = context.WithCancel(ctx)
	w.done.Go(func() { tell(ctx, e) })
}

func (w *waiter) stop() {
	if w.cancel != nil {
		w.cancel()
		w.done.Wait()
	}
}

// tellEnforced tells when the agent has the manifests in force.
func (l *Lab) tellEnforced(ctx context.Context, e expectation) {
	switch err := e.await(ctx, l.client); {
	case ctx.Err() != nil:
	case err != nil:
		l.opts.Message(err.Error())
	default:
		l.opts.Message(fmt.Sprintf("%d pods, all policies in force", e.pods))
		l.tellRejected(ctx)
	}
}

// tellRejected tells which objects are not in force as written.
func (l *Lab) tellRejected(ctx context.Context) {
	status, err := l.client.Status(ctx)
	if err != nil {
		return
	}
	for _, r := range status.Rejected {
		parts := slices.DeleteFunc([]string{r.Source, r.Object, r.Field, r.Reason, r.Effect}, func(s string) bool { return s == "" })
		l.opts.Message(strings.Join(parts, ": "))
	}
}

// tell replaces the faults that the lab's state shows, and says the new ones.
func (l *Lab) tell(faults ...error) {
	var texts []string
	for _, err := range faults {
		if err != nil {
			texts = append(texts, err.Error())
		}
	}
	l.mu.Lock()
	was := strings.Join(l.state.Messages, "\n")
	l.state.Messages = texts
	l.mu.Unlock()
	if now := strings.Join(texts, "\n"); now != was && now != "" {
		l.opts.Message(now)
	}
}
