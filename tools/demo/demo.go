// Package demo shows Sluice at work on a three-tier application: every
// connection that should or should not be possible is attempted for real, a
// policy is changed under a live connection, and the verdicts are watched.
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/deploy/examples"
	"github.com/sluice-net/sluice/tools/lab"
)

const (
	example     = "three-tier"
	policies    = "policies.yaml"
	queriesFile = "queries.jsonl"
)

// The change: the frontend's only door moves from the old ingress controller
// to the new gateway.
const (
	ChangedPolicy = "production/allow-frontend"
	OldClient     = "ingress-nginx/controller"
	NewClient     = "gateway/envoy"
	Frontend      = "production/frontend"
	frontendPort  = 443

	oldNamespace = "kubernetes.io/metadata.name: ingress-nginx"
	newNamespace = "kubernetes.io/metadata.name: gateway"
)

// Demo is the application, up and running.
type Demo struct {
	lab     *lab.Lab
	queries []lab.Query
	live    *stream // the connection that ChangePolicy cuts
}

// Up builds the node and starts the application. The caller must Close it.
func Up(ctx context.Context, opts lab.Options) (*Demo, error) {
	files, err := fs.Sub(examples.FS, example)
	if err != nil {
		return nil, fmt.Errorf("open example: %w", err)
	}
	raw, err := fs.ReadFile(files, queriesFile)
	if err != nil {
		return nil, fmt.Errorf("open example: %w", err)
	}
	queries, err := lab.ReadQueries(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	opts.Files = files
	l, err := lab.Up(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &Demo{lab: l, queries: queries}, nil
}

// Close takes all of it down.
func (d *Demo) Close() error { return d.lab.Close() }

// Pods is the number of pods.
func (d *Demo) Pods() int { return len(d.lab.State().Pods) }

// Queries is the number of connections that Attempt attempts.
func (d *Demo) Queries() int { return len(d.queries) }

// Attempt attempts every connection of the example.
func (d *Demo) Attempt(ctx context.Context) ([]lab.Answer, error) {
	return d.lab.Probe(ctx, d.queries)
}

// Change is what came of the change of a policy.
type Change struct {
	Enforced time.Duration // from the edit until the agent said so
	LastEcho time.Duration // from the edit until the live connection's last answer
	Echoes   int           // answers that the live connection had got before
	Cut      bool
	CutBy    *api.Flow    // what the dataplane said about the live connection
	After    []lab.Answer // both clients' new connections
}

// AsExpected reports whether the change did all that it should.
func (c *Change) AsExpected() bool {
	for i := range c.After {
		if c.After[i].Error != "" || c.After[i].Differs() {
			return false
		}
	}
	return c.Cut && c.CutBy != nil && c.Echoes > 0
}

// ChangePolicy edits a policy while a connection that it allows is in use.
func (d *Demo) ChangePolicy(ctx context.Context) (*Change, error) {
	s, err := d.openStream(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	d.live = s
	watch, stop := context.WithCancel(ctx)
	defer stop()
	verdicts := make(chan *api.Flow, 1)
	ready := make(chan struct{})
	go d.lab.Client().Flows(watch, 0, true, func() { close(ready) }, func(f *api.Flow) error {
		if s.is(f) && f.Verdict == lab.Deny {
			select {
			case verdicts <- f:
			default:
			}
		}
		return nil
	})
	select {
	case <-ready:
	case <-time.After(warmUp):
		return nil, errors.New("the agent doesn't report its verdicts")
	}
	if err := sleep(ctx, warmUp); err != nil {
		return nil, err
	}
	c := &Change{Echoes: s.echoes()}
	edited := time.Now()
	if err := d.movePolicy(oldNamespace, newNamespace); err != nil {
		return nil, err
	}
	if err := d.lab.Refresh(ctx); err != nil {
		return nil, err
	}
	c.Enforced = time.Since(edited)
	if err := sleep(ctx, silence); err != nil {
		return nil, err
	}
	last := s.lastEcho()
	c.LastEcho = max(0, last.Sub(edited))
	c.Cut = time.Since(last) >= silence*9/10
	select {
	case c.CutBy = <-verdicts:
	default:
	}
	c.After, err = d.lab.Probe(ctx, []lab.Query{
		{Src: OldClient, Dst: Frontend, Proto: "TCP", Port: frontendPort, Want: lab.Deny},
		{Src: NewClient, Dst: Frontend, Proto: "TCP", Port: frontendPort, Want: lab.Allow},
	})
	return c, err
}

// movePolicy edits the policies as a user would.
func (d *Demo) movePolicy(from, to string) error {
	path := filepath.Join(d.lab.Manifests(), policies)
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("edit policies: %w", err)
	}
	if bytes.Count(text, []byte(from)) != 1 {
		return fmt.Errorf("edit policies: %q is not there once", from)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte(from), []byte(to), 1), 0o600); err != nil {
		return fmt.Errorf("edit policies: %w", err)
	}
	return nil
}

// Watch calls visit with the verdict on each new connection for some time, while
// connections are attempted. What is sent again is not told again, and neither is
// what is still under way of the connection that was cut.
func (d *Demo) Watch(ctx context.Context, length time.Duration, visit func(*api.Flow)) error {
	limit, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	ready := make(chan struct{})
	done := make(chan error, 1)
	told := map[[2]netip.AddrPort]bool{}
	go func() {
		done <- d.lab.Client().Flows(limit, 0, true, func() { close(ready) }, func(f *api.Flow) error {
			ends := [2]netip.AddrPort{netip.AddrPortFrom(f.Src.Addr, f.Src.Port), netip.AddrPortFrom(f.Dst.Addr, f.Dst.Port)}
			if f.Reply || f.Event == "ended" || told[ends] || d.live != nil && d.live.is(f) {
				return nil
			}
			told[ends] = true
			visit(f)
			return nil
		})
	}()
	select {
	case <-ready:
		d.traffic(limit, length)
	case err := <-done:
		if limit.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	if err := <-done; err != nil && limit.Err() == nil {
		return err
	}
	return ctx.Err()
}

// traffic attempts connections, some that are allowed and some that are not,
// spread over the time.
func (d *Demo) traffic(ctx context.Context, length time.Duration) {
	byWant := map[string][]lab.Query{}
	for _, q := range d.queries {
		byWant[q.Want] = append(byWant[q.Want], q)
	}
	var probes sync.WaitGroup
	defer probes.Wait()
	const attempts = 16
	for i := range attempts {
		if sleep(ctx, length/(attempts+2)) != nil {
			return
		}
		some := byWant[lab.Allow]
		if i%2 == 1 {
			some = byWant[lab.Deny]
		}
		q := some[i/2*5%len(some)]
		probes.Go(func() { d.lab.Probe(ctx, []lab.Query{q}) }) // seen through its verdict
	}
	<-ctx.Done()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
