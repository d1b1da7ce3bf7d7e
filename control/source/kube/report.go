package kube

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/sluice-net/sluice/control/policy"
)

// How reports are bounded: so many writes a second and at once, whatever
// happens to the policies.
const (
	reportRate  = 5
	reportBurst = 50
	// maxReports bounds what waits to be said; what is beyond it is not said.
	maxReports = 10000
	// An agent leaves to the writer what that has had so long to say.
	leaveAfter = 5 * time.Minute
)

// reporter says in the cluster which policies are not in force as written: by
// an Event on each, and by a condition where the kind has a place for it. All
// agents see the same policies; the one that holds the lease writes. Nothing is
// said twice: an Event is named after what it says, and a condition that is
// there already is seen in the object itself.
type reporter struct {
	src   *Source
	lease *lease
	limit flowcontrol.RateLimiter
	wake  chan struct{}

	mu      sync.Mutex
	pending map[policy.Origin]report
	said    map[policy.Origin]string // of Events: the name of the last
}

// report is something to be said about an object.
type report struct {
	verdict
	told  time.Time
	tries int
}

func newReporter(s *Source) *reporter {
	return &reporter{
		src: s, wake: make(chan struct{}, 1), limit: flowcontrol.NewTokenBucketRateLimiter(reportRate, reportBurst),
		lease:   newLease(s.rest, s.cfg.ReportNamespace, s.cfg.NodeName, s.cfg.LeaseDuration),
		pending: map[policy.Origin]report{}, said: map[policy.Origin]string{},
	}
}

// tell takes note of an object's verdict, valid ones too.
func (r *reporter) tell(o policy.Origin, v verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !v.wantsCondition() && (len(v.rejections) == 0 || r.said[o] == v.eventName()) {
		delete(r.pending, o)
		return
	}
	if _, waits := r.pending[o]; !waits && len(r.pending) >= maxReports {
		return
	}
	r.pending[o] = report{verdict: v, told: time.Now()}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// forget drops what was to be said about an object that has gone.
func (r *reporter) forget(o policy.Origin) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pending, o)
	delete(r.said, o)
}

// run writes until ctx ends.
func (r *reporter) run(ctx context.Context) {
	for ctx.Err() == nil {
		again := time.Hour
		if r.waiting() {
			again = r.turn(ctx)
		}
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (r *reporter) waiting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending) > 0
}

// turn writes what there is if this agent is the writer, and says when to try
// again.
func (r *reporter) turn(ctx context.Context) time.Duration {
	if !r.lease.held() {
		// Not all agents at once.
		pause(ctx, rand.N(r.lease.duration/20))
	}
	mine, err := r.lease.acquire(ctx)
	if err != nil {
		r.failed(ctx, "hold lease", err)
		return min(r.src.cfg.Retry, r.lease.duration)
	}
	if !mine {
		r.leave()
		return r.lease.duration + rand.N(r.lease.duration)
	}
	for ctx.Err() == nil && r.lease.held() {
		o, next, ok := r.next()
		if !ok {
			return time.Hour
		}
		if err := r.limit.Wait(ctx); err != nil {
			return time.Hour
		}
		err := r.write(ctx, o, next)
		r.done(o, next, err)
		if err != nil {
			r.failed(ctx, "report on "+o.String(), err)
			if !errors.IsForbidden(err) {
				return time.Second << min(next.tries, 5)
			}
		}
	}
	return 0
}

func (r *reporter) next() (policy.Origin, report, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for o, next := range r.pending {
		return o, next, true
	}
	return policy.Origin{}, report{}, false
}

// done takes a report that was written off the list, unless there is a newer
// one. One that fails again and again is given up.
func (r *reporter) done(o policy.Origin, was report, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, ok := r.pending[o]
	if !ok || now.version != was.version {
		return
	}
	now.tries++
	if err != nil && !errors.IsForbidden(err) && now.tries < 8 {
		r.pending[o] = now
		return
	}
	delete(r.pending, o)
	if err == nil && len(was.rejections) > 0 {
		r.said[o] = was.eventName()
	}
}

// leave drops what the writer has had its time for.
func (r *reporter) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for o, p := range r.pending {
		if time.Since(p.told) > leaveAfter {
			delete(r.pending, o)
		}
	}
}

// failed notes why nothing can be said.
func (r *reporter) failed(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		r.src.note("reports", what+": "+err.Error())
	}
}

// write says what there is to say about one object.
func (r *reporter) write(ctx context.Context, o policy.Origin, v report) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r.mu.Lock()
	said := r.said[o]
	r.mu.Unlock()
	if len(v.rejections) > 0 && said != v.eventName() {
		if err := r.writeEvent(ctx, o, v.verdict); err != nil {
			return fmt.Errorf("write Event: %w", err)
		}
	}
	if v.wantsCondition() {
		if err := r.writeCondition(ctx, o, v.verdict); err != nil {
			return fmt.Errorf("write condition: %w", err)
		}
	}
	r.src.note("reports", "")
	return nil
}

// maxMessage is what an Event's note may have; conditions allow 32 KiB.
const maxMessage = 1000

// message says all that doesn't hold, or the beginning of it.
func (v *verdict) message() string {
	var b strings.Builder
	for i, r := range v.rejections {
		line := r.Reason
		if r.Field != "" {
			line = r.Field + ": " + line
		}
		if i == len(v.rejections)-1 || v.rejections[i+1].Effect != r.Effect {
			line += " (" + r.Effect + ")"
		}
		if b.Len()+len(line) > maxMessage {
			fmt.Fprintf(&b, "… and %d more", len(v.rejections)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(line)
	}
	return strings.ToValidUTF8(b.String(), "?")
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
