package classify_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// churn keeps a Set as it should be, beside the Updater that is told of it.
type churn struct {
	rng *rand.Rand
	set *rule.Set
}

// change draws a Delta and applies it to the set in the plainest way.
func (c *churn) change() rule.Delta {
	d := rule.Delta{Generation: c.set.Generation + 1}
	other := ruletest.Random(c.rng, ruletest.Small())
	next := *c.set
	next.Generation = d.Generation
	if c.rng.IntN(4) == 0 {
		d.Peers = other.Peers
		next.Peers = max(next.Peers, other.Peers)
		d.Identities = other.Identities
		next.Identities = slices.Concat(next.Identities, other.Identities)
	}
	if next.Peers >= other.Peers {
		c.changePrograms(&d, &next, other)
	}
	c.changeAddresses(&d, &next)
	c.set = &next
	return d
}

func (c *churn) changePrograms(d *rule.Delta, next, other *rule.Set) {
	if c.rng.IntN(6) == 0 {
		d.Blocks = append([]rule.Block{}, other.Blocks...)
		next.Blocks = d.Blocks
	}
	if c.rng.IntN(3) == 0 {
		d.Programs = slices.Clone(next.Programs)
		for _, p := range other.Programs {
			if c.rng.IntN(2) == 0 {
				d.Programs[c.rng.IntN(len(d.Programs))] = p
			} else if c.rng.IntN(2) == 0 {
				d.Programs = append(d.Programs, p)
			}
		}
		next.Programs = d.Programs
	}
	if c.rng.IntN(3) == 0 {
		d.Endpoints = append([]rule.Endpoint{}, other.Endpoints...)
		for i := range d.Endpoints {
			d.Endpoints[i].Ingress = rule.ProgramID(c.rng.IntN(len(next.Programs)))
			d.Endpoints[i].Egress = rule.ProgramID(c.rng.IntN(len(next.Programs)))
		}
		next.Endpoints = d.Endpoints
	}
}

func (c *churn) changeAddresses(d *rule.Delta, next *rule.Set) {
	bound := map[netip.Addr]uint32{}
	for _, a := range next.Addresses {
		bound[a.Addr] = a.Identity
	}
	for range c.rng.IntN(4) {
		a := ruletest.RandomAddr(c.rng)
		if n := len(next.Addresses); n > 0 && c.rng.IntN(2) == 0 {
			a = next.Addresses[c.rng.IntN(n)].Addr
		}
		d.Unbind = append(d.Unbind, a)
		delete(bound, a)
	}
	for range c.rng.IntN(6) {
		if n := len(next.Identities); n > 0 {
			a := rule.Address{Addr: ruletest.RandomAddr(c.rng), Identity: uint32(c.rng.IntN(n))}
			d.Bind = append(d.Bind, a)
			bound[a.Addr] = a.Identity
		}
	}
	next.Addresses = nil
	for a, id := range bound {
		next.Addresses = append(next.Addresses, rule.Address{Addr: a, Identity: id})
	}
	slices.SortFunc(next.Addresses, func(a, b rule.Address) int { return a.Addr.Compare(b.Addr) })
}

// renumber gives the identities of the set other numbers.
func (c *churn) renumber() {
	next := *c.set
	order := c.rng.Perm(len(next.Identities))
	next.Identities = make([]rule.Identity, len(order))
	for i, to := range order {
		next.Identities[to] = c.set.Identities[i]
	}
	next.Addresses = slices.Clone(next.Addresses)
	for i := range next.Addresses {
		next.Addresses[i].Identity = uint32(order[next.Addresses[i].Identity])
	}
	c.set = &next
}

// TestUpdateAgainstOracle changes sets at random, by Update and by Replace,
// and compares each table with the oracle and with a fresh build.
func TestUpdateAgainstOracle(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 3))
		c := churn{rng: rng, set: ruletest.Random(rng, ruletest.Small())}
		u, err := classify.NewUpdater(c.set)
		if err != nil {
			t.Fatal(err)
		}
		for step := range 40 {
			d := c.change()
			if rng.IntN(4) == 0 {
				c.renumber()
				_, err = u.Replace(c.set)
			} else {
				_, err = u.Update(d)
			}
			if err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			if rng.IntN(8) == 0 {
				if got := u.Table().Set(); !equalSets(got, c.set) {
					t.Fatalf("seed %d step %d: got set\n%+v, want\n%+v", seed, step, got, c.set)
				}
			}
			compare(t, u.Table(), c.set, rng, 60)
			if t.Failed() {
				t.Fatalf("seed %d step %d", seed, step)
			}
		}
	}
}

// equalSets takes empty and nil slices for equal.
func equalSets(a, b *rule.Set) bool {
	return a.Generation == b.Generation && a.Peers == b.Peers &&
		slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Endpoints, b.Endpoints) &&
		slices.EqualFunc(a.Identities, b.Identities, slices.Equal) &&
		slices.EqualFunc(a.Blocks, b.Blocks, func(a, b rule.Block) bool { return reflect.DeepEqual(a, b) }) &&
		slices.EqualFunc(a.Programs, b.Programs, func(a, b rule.Program) bool { return reflect.DeepEqual(a, b) })
}

// published is a table with the answers that a fresh build of its Set gives.
type published struct {
	table   *classify.Table
	queries []classify.Query
	want    []classify.Verdict
}

func publish(t *testing.T, table *classify.Table, set *rule.Set, rng *rand.Rand) *published {
	fresh, err := classify.Build(set)
	if err != nil {
		t.Fatal(err)
	}
	p := &published{table: table, want: make([]classify.Verdict, 300)}
	var reference []classify.Query
	for range p.want {
		x := ruletest.RandomProbe(rng, set)
		q := classify.Query{Remote: packet.AddrFrom(x.Remote), Port: x.Port, Proto: packet.Proto(x.Proto)}
		q.Row = fresh.Row(x.Endpoint, x.Direction)
		reference = append(reference, q)
		q.Row = table.Row(x.Endpoint, x.Direction)
		p.queries = append(p.queries, q)
	}
	fresh.Classify(reference, p.want)
	got := make([]classify.Verdict, len(p.want))
	if table.Classify(p.queries, got); !slices.Equal(got, p.want) {
		t.Error("an updated table differs from a fresh one")
	}
	return p
}

// TestReadersDuringUpdates lets readers check new and old tables while they
// are replaced: what was published must never change again.
func TestReadersDuringUpdates(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	c := churn{rng: rng, set: ruletest.Random(rng, ruletest.Small())}
	u, err := classify.NewUpdater(c.set)
	if err != nil {
		t.Fatal(err)
	}
	var current atomic.Pointer[published]
	current.Store(publish(t, u.Table(), c.set, rng))
	var done atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			out := make([]classify.Verdict, 300)
			old := current.Load()
			for n := 0; !done.Load(); n++ {
				now := current.Load()
				for _, p := range []*published{old, now} {
					p.table.Classify(p.queries, out)
					if !slices.Equal(out, p.want) {
						i := 0
						for out[i] == p.want[i] {
							i++
						}
						t.Errorf("generation %d, published table, query %+v: got %x, want %x", p.table.Set().Generation, p.queries[i], out[i], p.want[i])
						return
					}
				}
				if n%16 == 0 {
					old = now
				}
			}
		})
	}
	for range 40 {
		d := c.change()
		if _, err := u.Update(d); err != nil {
			t.Error(err)
			break
		}
		current.Store(publish(t, u.Table(), c.set, rng))
	}
	done.Store(true)
	readers.Wait()
}

// TestUpdateRefusesAndRecovers checks that a bad Delta changes nothing.
func TestUpdateRefusesAndRecovers(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	set := ruletest.Random(rng, ruletest.Small())
	for len(set.Identities) == 0 || len(set.Endpoints) == 0 {
		set = ruletest.Random(rng, ruletest.Small())
	}
	u, err := classify.NewUpdater(set)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("10.0.0.77")
	for name, d := range map[string]rule.Delta{
		"identity":     {Bind: []rule.Address{{Addr: addr, Identity: 999}}},
		"bind":         {Bind: []rule.Address{{}}},
		"unbind":       {Unbind: []netip.Addr{{}}},
		"peer":         {Identities: []rule.Identity{{rule.PeerID(set.Peers)}}},
		"block":        {Blocks: []rule.Block{{Peer: rule.PeerID(set.Peers), Prefix: netip.MustParsePrefix("10.0.0.0/8")}}},
		"prefix":       {Blocks: []rule.Block{{}}},
		"no program":   {Programs: []rule.Program{}},
		"endpoint 0":   {Endpoints: []rule.Endpoint{{}}},
		"out of order": {Endpoints: []rule.Endpoint{{ID: 2}, {ID: 1}}},
	} {
		before := u.Table()
		if _, err := u.Update(d); err == nil || u.Table() != before {
			t.Errorf("%s: error %v, same table %v", name, err, u.Table() == before)
		}
		compare(t, u.Table(), set, rng, 20)
	}
	next, err := u.Update(rule.Delta{Generation: 7, Bind: []rule.Address{{Addr: addr, Identity: 0}}})
	if err != nil {
		t.Fatal(err)
	}
	want := *set
	want.Generation = 7
	want.Addresses = append(slices.Clone(set.Addresses), rule.Address{Addr: addr})
	slices.SortFunc(want.Addresses, func(a, b rule.Address) int { return a.Addr.Compare(b.Addr) })
	if !equalSets(next.Set(), &want) {
		t.Errorf("got %+v", next.Set())
	}
	compare(t, next, &want, rng, 100)
}

// wearing changes one of two programs at a time, n times, each time to ports that
// no rule had before.
func wearing(t *testing.T, n int) *classify.Updater {
	const peers = 10
	program := func(port int) rule.Program {
		return perPeer(peers, func(int) []rule.PortRange {
			return []rule.PortRange{{Proto: 6, From: uint16(port), To: uint16(port)}}
		})
	}
	programs := []rule.Program{program(80), program(81)}
	u, err := classify.NewUpdater(&rule.Set{Peers: peers, Programs: programs,
		Endpoints: []rule.Endpoint{{ID: 1, Egress: 1}, {ID: 2, Ingress: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		programs = slices.Clone(programs)
		programs[i%2] = program(1000 + i)
		if _, err := u.Update(rule.Delta{Generation: uint64(i + 1), Programs: programs}); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

// TestPortsOfThePast has rules name other ports again and again: those that they
// named before must not be told apart for ever.
func TestPortsOfThePast(t *testing.T) {
	if n := wearing(t, 400).PortClasses(); n > 256 {
		t.Errorf("%d classes of ports, which is too many for narrow tables", n)
	}
}

// TestUsersOnce checks that rows which are compiled by turns are listed once for
// each peer.
func TestUsersOnce(t *testing.T) {
	if got, want := wearing(t, 50).Users(), 10*2; got != want {
		t.Errorf("%d rows listed as users of peers, want %d", got, want)
	}
}

// TestAddressesOfThePast binds a thousand IPv6 addresses at a time, none of them
// twice, in place of the thousand before them.
func TestAddressesOfThePast(t *testing.T) {
	set := &rule.Set{Peers: 1, Identities: []rule.Identity{{0}}, Endpoints: []rule.Endpoint{{ID: 1}},
		Programs: []rule.Program{perPeer(1, func(int) []rule.PortRange { return nil })}}
	u, err := classify.NewUpdater(set)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(8, 8))
	var bound []netip.Addr
	most := uint64(0)
	for range 150 {
		d := rule.Delta{Unbind: bound}
		bound = nil
		for range 1000 {
			a := [16]byte{0: 0xfd}
			binary.BigEndian.PutUint64(a[8:], rng.Uint64())
			bound = append(bound, netip.AddrFrom16(a))
			d.Bind = append(d.Bind, rule.Address{Addr: bound[len(bound)-1]})
		}
		if _, err := u.Update(d); err != nil {
			t.Fatal(err)
		}
		most = max(most, u.Table().Bytes())
	}
	if most > 10<<20 {
		t.Errorf("a table took %d KB, of 1000 addresses", most>>10)
	}
}
