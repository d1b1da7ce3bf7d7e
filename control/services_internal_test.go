package control

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/forward"
	"github.com/sluice-net/sluice/control/metrics"
	learn "github.com/sluice-net/sluice/control/names"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/publish"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/classify"
)

// toldPlane is a dataplane that keeps how many Services it was told of last.
type toldPlane struct{ services int }

func (p *toldPlane) SetHost(_ []netip.Addr, list []dataplane.Service) error {
	p.services = len(list)
	return nil
}
func (p *toldPlane) Publish(*classify.Table) error { return nil }
func (p *toldPlane) Repair() error                 { return nil }

// Services come while rules are published: once nothing comes any more and the loop
// finds nothing to do, the dataplane knows them all.
func TestServicesWhilePublishing(t *testing.T) {
	st, plane := store.New(), &toldPlane{}
	a := &Agent{store: st, log: slog.New(slog.DiscardHandler), publisher: publish.New(compile.Config{}),
		metrics: metrics.New(metrics.Config{}, nil, nil, nil)}
	a.lookups.learner = learn.New(learn.Default(), nil)
	a.services = serviceLoop{plane: plane, planner: forward.NewPlanner(), plan: &forward.Plan{}, guard: &forward.Guard{}}
	a.services.others.Store(&others{})
	set := func(i int) {
		at := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		port := store.NamedPort{Name: "p", Protocol: policy.TCP, Port: 80}
		name := fmt.Sprint(i)
		st.Update(func(tx *store.Tx) {
			tx.SetService(&store.Service{Namespace: "x", Name: name, Addrs: []netip.Addr{at}, Exposed: []store.ServicePort{{NamedPort: port}}})
			tx.SetEndpointSlice(&store.EndpointSlice{Namespace: "x", Name: name, Service: name, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Ports: []store.NamedPort{port}})
		})
	}
	const rounds, burst = 100, 4
	for round := range rounds {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range burst {
				set(round*burst + i)
			}
		}()
		for more := true; more; {
			select {
			case <-done:
				more = false
			default:
			}
			if err := a.publish(false); err != nil {
				t.Fatal(err)
			}
		}
		if want := (round + 1) * burst; plane.services != want {
			t.Fatalf("round %d: the dataplane knows %d Services of %d", round, plane.services, want)
		}
	}
}

// A node port is at the node's addresses and, if a backend is of IPv6, at all its
// link-local ones; a Service's own port is not.
func TestServicesAtNode(t *testing.T) {
	st := store.New()
	port := store.NamedPort{Name: "p", Protocol: policy.TCP, Port: 80}
	st.Update(func(tx *store.Tx) {
		tx.SetService(&store.Service{Namespace: "x", Name: "s", Exposed: []store.ServicePort{{NamedPort: port, NodePort: 30080}},
			Addrs: []netip.Addr{netip.MustParseAddr("fd00:96::1")}})
		tx.SetEndpointSlice(&store.EndpointSlice{Namespace: "x", Name: "s", Service: "s", Addrs: []netip.Addr{netip.MustParseAddr("fd00::1")}, Ports: []store.NamedPort{port}})
		tx.SetService(&store.Service{Namespace: "x", Name: "t", Exposed: []store.ServicePort{{NamedPort: port, NodePort: 30081}}})
		tx.SetEndpointSlice(&store.EndpointSlice{Namespace: "x", Name: "t", Service: "t", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Ports: []store.NamedPort{port}})
	})
	var got []string
	st.Read(func(v store.View) {
		for _, s := range services(v, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}) {
			got = append(got, netip.AddrPortFrom(s.Addr, s.Port).String())
		}
	})
	slices.Sort(got)
	if want := []string{"192.0.2.1:30081", "[2001:db8::1]:30080", "[fd00:96::1]:80", "[fe80::]:30080"}; !slices.Equal(got, want) {
		t.Errorf("Services at %v, want %v", got, want)
	}
}
