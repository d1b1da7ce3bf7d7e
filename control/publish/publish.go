// Package publish makes the classifier of a node follow the store: changes of
// the store become a rule.Delta, and that a classify.Table that shares with
// the one before it whatever hasn't changed.
//
// A Publisher belongs to one goroutine; the Tables that it returns are
// immutable, and for as many readers as like. With 50,000 pods and 10,000
// policies a pod costs tens of microseconds, a policy that names pods some
// hundred, and one that names CIDRs a few milliseconds. What concerns no local
// pod costs the look that finds that out, and no Table. It never touches the
// dataplane: to put a Table in force is its caller's business.
package publish

import (
	"fmt"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/dataplane/classify"
)

// Publisher makes Tables from the views of one store.
type Publisher struct {
	compiler *compile.Compiler
	updater  *classify.Updater
}

// New returns a Publisher that has made no Table yet.
func New(cfg compile.Config) *Publisher { return &Publisher{compiler: compile.New(cfg)} }

// Table returns the latest Table, nil before the first.
func (p *Publisher) Table() *classify.Table {
	if p.updater == nil {
		return nil
	}
	return p.updater.Table()
}

// Next returns the Table for in: the latest one if nothing has changed. After
// an error the next call begins from nothing.
func (p *Publisher) Next(in compile.Input) (*classify.Table, error) {
	if p.updater != nil {
		if d, ok := p.compiler.Update(in); ok {
			if d.Empty() {
				return p.updater.Table(), nil
			}
			t, err := p.updater.Update(d)
			if err != nil {
				p.updater = nil
				return nil, fmt.Errorf("update classifier to generation %d: %w", d.Generation, err)
			}
			return t, nil
		}
	}
	set := p.compiler.Compile(in)
	u, err := classify.NewUpdater(set)
	if err != nil {
		p.updater = nil
		return nil, fmt.Errorf("build classifier of generation %d: %w", set.Generation, err)
	}
	p.updater = u
	return u.Table(), nil
}
