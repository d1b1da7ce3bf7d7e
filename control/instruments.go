package control

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/sluice-net/sluice/control/metrics"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/control/web"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Telemetry implements api.Telemetry.
func (a *Agent) Telemetry() http.Handler { return a.metrics.Handler() }

// stuckAfter is how long a turn of the loop may take before it counts as hung:
// the first one of a large cluster takes seconds.
const stuckAfter = 2 * time.Minute

// instruments is the agent as metrics read it.
type instruments struct{ *Agent }

// State implements metrics.Agent.
func (a instruments) State() metrics.State {
	src := a.source.State()
	a.mu.Lock()
	loop := a.status
	a.mu.Unlock()
	s := metrics.State{Node: a.cfg.NodeName, Version: buildVersion(), Generation: loop.generation, Failures: loop.failures,
		Pending: len(loop.pending), Rejected: map[string]int{},
		CallsGuarded: loop.services.Guarded, CallsClosed: loop.services.Closed, ServiceDrops: a.services.guard.Drops()}
	for _, e := range a.plane.Endpoints() {
		if a.plane.Generation(e.ID) == 0 {
			s.Isolated++
		} else {
			s.Enforced++
		}
	}
	for _, r := range src.Rejections {
		kind, _, _ := strings.Cut(r.Object, " ")
		s.Rejected[kind]++
	}
	for _, w := range src.Watches {
		s.Watches = append(s.Watches, metrics.Watch{Resource: w.Resource, Synced: w.Synced, Healthy: w.Healthy, Current: w.Current, Objects: w.Objects})
	}
	s.NotHealthy = a.stuck()
	s.NotReady = a.unready(src, &loop)
	return s
}

// webState is what the web page's head says.
func (a *Agent) webState() web.State {
	s := instruments{a}.State()
	w := web.State{Node: s.Node, NotReady: s.NotReady, Generation: s.Generation, Pods: s.Enforced + s.Isolated}
	for _, n := range s.Rejected {
		w.Rejected += n
	}
	return w
}

// stuck says what stands still and only a new start would move; "" if nothing
// does. A worker without a socket is none of that: it binds anew by itself.
func (a *Agent) stuck() string {
	if since := a.turning.Load(); since != 0 {
		if took := time.Since(a.started) - time.Duration(since); took > stuckAfter {
			return fmt.Sprintf("the control loop has been at one turn for %v", took.Round(time.Second))
		}
	}
	for id, age := range a.plane.Beats() {
		if age > a.plane.Config().HeartbeatTimeout {
			return fmt.Sprintf("worker %d hangs: its last heartbeat was %v ago", id, age.Round(time.Millisecond))
		}
	}
	return ""
}

// unready says why policy is not in force yet on all that is known; "" if it is.
func (a *Agent) unready(src SourceState, loop *loopStatus) string {
	switch {
	case !src.Synced:
		return "the source is not known in full yet"
	case !loop.ready:
		return "no rules are in force yet"
	case len(loop.pending) > 0:
		return fmt.Sprintf("%d pods are not attached yet, %s the first", len(loop.pending), loop.pending[0])
	}
	alive := a.plane.Beats()
	for id := range a.cfg.Workers {
		if age, ok := alive[id]; !ok || age > a.plane.Config().HeartbeatTimeout {
			return fmt.Sprintf("worker %d does not serve its queue", id)
		}
	}
	return ""
}

// InForce implements metrics.Agent.
func (a instruments) InForce(keys []metrics.PolicyKey) (kept []metrics.PolicyKey) {
	a.store.Read(func(v store.View) {
		for _, k := range keys {
			for range v.PoliciesOf(policy.Origin{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}) {
				kept = append(kept, k)
				break
			}
		}
	})
	return kept
}

// Cause implements metrics.Agent.
func (a instruments) Cause(id rule.CauseID) rule.Cause { return a.Agent.Cause(id) }

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

// persist calls serve, and again when it fails, until ctx ends: that somebody
// else has the port is no reason to enforce nothing.
func (a *Agent) persist(ctx context.Context, what string, serve func(context.Context) error) error {
	for ctx.Err() == nil {
		err := serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		a.log.Error(what+" not served", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(serveRetry):
		}
	}
	return nil
}
