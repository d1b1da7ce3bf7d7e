// Package connectivity tries a node's or a cluster's network out: connections
// between pods, to Services, to nodes, to the world and to DNS, over IPv4 and
// IPv6, without policies, with policies that close and open them, and after
// those are removed again. Each connection is attempted for real and compared
// with what policy says it should do.
//
// What is tried is the same everywhere; where it is tried is a Target. A Run
// belongs to one goroutine, and leaves cleaning up to Target.Close.
package connectivity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Dest is a kind of destination.
type Dest string

const (
	Pod     Dest = "pod"
	Service Dest = "service"
	Node    Dest = "node"
	World   Dest = "world"
	DNS     Dest = "dns"
)

// The pods that every Target has, in a namespace of their own. client and other
// call; server and dns answer, on all of their addresses.
const (
	Client = "client"
	Other  = "other"
	Server = "server"
	Name   = "dns"
)

// ErrSkip says that a Target can't try something, such as IPv6 in a cluster
// that has none.
var ErrSkip = errors.New("skipped")

// Outcome is what became of an attempt.
type Outcome struct {
	Passed bool
	Seen   string // the same in words
}

// Target is where connections are tried.
type Target interface {
	// Try attempts one connection from a pod. An error that is ErrSkip says
	// that the target has no such thing.
	Try(ctx context.Context, from string, to Dest, family int) (Outcome, error)
	// Apply makes these NetworkPolicies, by name, those that there are, and
	// returns when they are in force.
	Apply(ctx context.Context, policies map[string]string) error
	// Close removes all that the target has made.
	Close() error
}

// Result is one check.
type Result struct {
	Stage  string `json:"stage"`
	From   string `json:"from"`
	To     Dest   `json:"to"`
	Family int    `json:"family"`
	Want   string `json:"want"`   // allow or deny
	Got    string `json:"got"`    // allow, deny, skipped or error
	Detail string `json:"detail"` // what was seen
	OK     bool   `json:"ok"`
}

// Report is a whole run.
type Report struct {
	Results []Result      `json:"results"`
	Passed  int           `json:"passed"`
	Failed  int           `json:"failed"`
	Skipped int           `json:"skipped"`
	Took    time.Duration `json:"tookNs"`
}

// Progress is told what happens, from the goroutine of Run.
type Progress func(stage string, done, of, failed int)

// tries is how often an attempt that an error ended is made.
const tries = 2

// Run tries every stage that filter names, or all without one.
func Run(ctx context.Context, t Target, filter []string, tell Progress) (*Report, error) {
	began := time.Now()
	report := &Report{Results: []Result{}}
	chosen := stages
	if len(filter) > 0 {
		chosen = nil
		for _, s := range stages {
			if slices.ContainsFunc(filter, func(f string) bool { return strings.Contains(s.name, f) }) {
				chosen = append(chosen, s)
			}
		}
		if len(chosen) == 0 {
			return nil, fmt.Errorf("no stage is called like %s; there are %s", strings.Join(filter, ", "), strings.Join(Stages(), ", "))
		}
	}
	for i, s := range chosen {
		tell(s.name, i, len(chosen), report.Failed)
		if err := t.Apply(ctx, s.policies); err != nil {
			return report, fmt.Errorf("stage %q: apply policies: %w", s.name, err)
		}
		report.add(s.settle(ctx, t))
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
	}
	tell("", len(chosen), len(chosen), report.Failed)
	report.Took = time.Since(began)
	return report, nil
}

func (r *Report) add(results []Result) {
	for _, x := range results {
		switch {
		case x.Got == "skipped":
			r.Skipped++
		case x.OK:
			r.Passed++
		default:
			r.Failed++
		}
	}
	r.Results = append(r.Results, results...)
}

// Settler is a Target that can't tell when policies are in force: they must be
// after this long.
type Settler interface{ Settle() time.Duration }

// settle runs a stage. Where policies need time to come into force it is run
// again, as a whole, until all is as it should be at the same time.
func (s *stage) settle(ctx context.Context, t Target) []Result {
	var end time.Time
	if x, ok := t.(Settler); ok {
		end = time.Now().Add(x.Settle())
	}
	for {
		out := s.try(ctx, t)
		good := !slices.ContainsFunc(out, func(r Result) bool { return !r.OK })
		if good || time.Now().After(end) {
			return out
		}
		select {
		case <-ctx.Done():
			return out
		case <-time.After(time.Second):
		}
	}
}

// try runs all attempts of a stage at the same time.
func (s *stage) try(ctx context.Context, t Target) []Result {
	var out []Result
	for _, from := range []string{Client, Other} {
		for _, to := range []Dest{Pod, Service, Node, World, DNS} {
			for _, family := range []int{4, 6} {
				want := "allow"
				if slices.Contains(s.denied[from], to) {
					want = "deny"
				}
				out = append(out, Result{Stage: s.name, From: from, To: to, Family: family, Want: want})
			}
		}
	}
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() { out[i].run(ctx, t) })
	}
	wg.Wait()
	return out
}

func (r *Result) run(ctx context.Context, t Target) {
	for range tries {
		o, err := t.Try(ctx, r.From, r.To, r.Family)
		switch {
		case errors.Is(err, ErrSkip):
			r.Got, r.Detail, r.OK = "skipped", err.Error(), true
			return
		case err != nil:
			r.Got, r.Detail = "error", err.Error()
			continue
		case o.Passed:
			r.Got = "allow"
		default:
			r.Got = "deny"
		}
		r.Detail, r.OK = o.Seen, r.Got == r.Want
		return
	}
}
