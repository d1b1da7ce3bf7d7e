package control

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/control/forward"
	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// failingPlane is a dataplane that fails to do some things once.
type failingPlane struct {
	fails, did []string
}

var errOnce = errors.New("once")

func (p *failingPlane) do(what string) error {
	p.did = append(p.did, what)
	if i := slices.Index(p.fails, what); i >= 0 {
		p.fails = slices.Delete(p.fails, i, i+1)
		return errOnce
	}
	return nil
}

func (p *failingPlane) SetHost([]netip.Addr, []dataplane.Service) error { return p.do("host") }
func (p *failingPlane) Publish(*classify.Table) error                   { return p.do("publish") }
func (p *failingPlane) Repair() error                                   { return p.do("repair") }

// What the kernel could not be told is tried again by the next turn, though nothing
// has changed since, and does not keep rules from being published.
func TestPutInForceAgain(t *testing.T) {
	table, err := classify.Build(&rule.Set{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name        string
		fails       []string
		first, next []string
	}{
		{"nothing", nil, []string{"host", "publish", "repair"}, []string{"repair", "repair"}},
		{"host", []string{"host"}, []string{"host", "publish"}, []string{"repair", "repair"}},
		{"host and repair", []string{"host", "repair"}, []string{"host", "publish"}, []string{"repair"}},
		{"publish", []string{"publish"}, []string{"host", "publish"}, []string{"repair", "repair"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake := &failingPlane{fails: tt.fails}
			a := &Agent{log: slog.New(slog.DiscardHandler)}
			a.services = serviceLoop{plane: fake, revision: 1, planner: forward.NewPlanner(), plan: &forward.Plan{}, guard: &forward.Guard{}}
			a.services.others.Store(&others{})
			err := a.putInForce(table, nil, true)
			if (err != nil) != (len(tt.fails) > 0) || !slices.Equal(fake.did, tt.first) {
				t.Errorf("first: %v, %v; want %v", fake.did, err, tt.first)
			}
			fake.did = nil
			err = a.putInForce(table, nil, false)
			if (err != nil) != (len(tt.next) == 1) || !slices.Equal(fake.did, tt.next) {
				t.Errorf("then: %v, %v; want %v", fake.did, err, tt.next)
			}
		})
	}
}
