package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/xdpprog"
)

// A generation that the kernel could not be told of is told later, whatever it was
// given out for: its caches would let flows on that are denied by now.
func TestRepair(t *testing.T) {
	p := newTestPlane(t, &heldFilters{})
	for i, a := range []netip.Addr{addrA, addrB} {
		if _, err := p.Attach(endpoint.Endpoint{Name: a.String(), Addrs: []netip.Addr{a}, Link: endpoint.Link{Ifindex: 70 + i}}); err != nil {
			t.Fatal(err)
		}
	}
	service := func(backend netip.Addr) []Service {
		return []Service{{Addr: vip, Proto: packet.ProtoTCP, Port: 80, Backends: []netip.AddrPort{netip.AddrPortFrom(backend, 8080)}}}
	}
	build := func(generation uint32) *classify.Table {
		set := serviceSet()
		for i := range set.Endpoints {
			set.Endpoints[i].Generation = generation
		}
		table, err := classify.Build(set)
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	next := build(2)
	if err := errors.Join(p.SetHost(nil, service(good[0])), p.Publish(build(1))); err != nil {
		t.Fatal(err)
	}
	works, broken := p.putEndpoint, errors.New("no memory")
	for _, step := range []struct {
		name string
		do   func() error
		ids  []endpoint.ID // whose generation it changes
	}{
		{"a Service leads elsewhere", func() error { return p.SetHost(nil, service(bad)) }, []endpoint.ID{slotA}},
		{"other rules", func() error { return p.Publish(next) }, []endpoint.ID{slotA, slotB}},
		{"names are learned", func() error { return p.SetLearners(func(id endpoint.ID) bool { return id == slotB }) }, []endpoint.ID{slotB}},
		{"a pod has gone", func() error { return p.Cut(slotB) }, []endpoint.ID{slotB}},
	} {
		t.Run(step.name, func(t *testing.T) {
			writes := 0
			p.putEndpoint = func(slot uint32, e xdpprog.Endpoint) error {
				if writes++; writes == 1 {
					return fmt.Errorf("write endpoint %d: %w", slot, broken)
				}
				return works(slot, e)
			}
			if err := step.do(); !errors.Is(err, broken) {
				t.Fatalf("a write that failed: %v", err)
			}
			if writes != len(step.ids) {
				t.Errorf("%d writes, want %d: one that fails must not keep the others from theirs", writes, len(step.ids))
			}
			if err := step.do(); step.name != "a pod has gone" && err != nil {
				t.Errorf("once more: %v", err)
			}
			if err := p.Repair(); err != nil {
				t.Fatal(err)
			}
			for _, id := range step.ids {
				e, err := p.objs.Endpoint(uint32(id))
				if err != nil {
					t.Fatal(err)
				}
				if s := &p.slots[id]; e != s.kernel(&s.ep) {
					t.Errorf("the kernel has %+v of endpoint %d, want %+v", e, id, s.kernel(&s.ep))
				}
			}
			before := writes
			if err := p.Repair(); err != nil || writes != before {
				t.Errorf("%d more writes of what the kernel has, %v", writes-before, err)
			}
		})
	}
}
