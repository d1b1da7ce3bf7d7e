package classify

import (
	"fmt"
	"math/rand/v2"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// Build compiles a Set. It refuses a set that contradicts itself, or that no
// table can hold.
func Build(set *rule.Set) (*Table, error) {
	b, err := newBuilder(set)
	if err != nil {
		return nil, err
	}
	t := b.publish()
	t.origin.from(set)
	return t, nil
}

// builder is the side of tables that is written. What it has published is
// never written again: builder appends to slabs behind what readers know of,
// and copies the rest before it changes it.
type builder struct {
	set     rule.Set // but for its Addresses
	peers   peers
	classes *classes
	space   space
	paint16 *painter[uint16] // one of the two
	paint32 *painter[uint32]
	ports   *ports
	book    book
	rowOf   []Row // by ProgramID; DenyRow for programs that nobody uses
	rows    []endpointRows
}

func newBuilder(set *rule.Set) (*builder, error) {
	b := &builder{set: *set}
	b.set.Addresses = nil
	programs, err := usedPrograms(set)
	if err != nil {
		return nil, err
	}
	if err := checkPeers(set, programs, 0, true); err != nil {
		return nil, err
	}
	addresses, err := sortedAddresses(set)
	if err != nil {
		return nil, err
	}
	b.peers.use(set, programs)
	b.classes = newClasses(set, &b.peers)
	if err := b.layOut(addresses); err != nil {
		return nil, err
	}
	b.ports = newPorts()
	for _, id := range programs {
		b.ports.addAll(&set.Programs[id])
	}
	b.ports.build()
	b.book = newBook(b.ports.classes, b.classes.sets.len())
	b.compile(programs)
	b.index()
	if err := b.book.check(); err != nil {
		return nil, err
	}
	return b, nil
}

// slack is how many classes updates may add before everything is built anew.
func slack(classes int) uint32 {
	n := uint32(classes)
	if wide := n + n/4 + 256; wide <= 1<<16 || n > 1<<16 {
		return wide
	}
	return 1 << 16
}

// layOut lays all addresses, which are sorted, out anew.
func (b *builder) layOut(addresses []rule.Address) error {
	var s space
	s.spans4, s.spans6 = spans(&b.set, &b.peers, b.classes)
	s.points4, s.points6 = points(addresses)
	s.settle(b.classes)
	capacity := slack(b.classes.sets.len())
	if capacity > 1<<30 {
		return fmt.Errorf("%d classes of addresses, want at most %d", b.classes.sets.len(), 1<<29)
	}
	seed := [2]uint64{rand.Uint64() | 1, rand.Uint64() | 1}
	b.paint16, b.paint32 = nil, nil
	if capacity <= 1<<16 {
		b.paint16 = layOut[uint16](&s, capacity, seed)
	} else {
		b.paint32 = layOut[uint32](&s, capacity, seed)
	}
	s.points4, s.points6 = nil, nil
	b.space = s
	return nil
}

// compile compiles programs into rows, new ones where they have none.
func (b *builder) compile(programs []rule.ProgramID) {
	w := b.rower()
	w.list, w.starts = b.classes.members(b.peers.count)
	for len(b.rowOf) < len(b.set.Programs) {
		b.rowOf = append(b.rowOf, DenyRow)
	}
	for _, id := range programs {
		b.rowOf[id] = b.book.put(b.rowOf[id], &b.set.Programs[id], w.compile(&b.set.Programs[id]), &b.peers)
	}
}

func (b *builder) rower() *rower {
	return &rower{peers: &b.peers, ports: b.ports, classes: b.classes.sets.len()}
}

// index lists the rows of the endpoints.
func (b *builder) index() {
	b.rows = nil
	if n := len(b.set.Endpoints); n > 0 {
		b.rows = make([]endpointRows, b.set.Endpoints[n-1].ID+1)
	}
	for _, e := range b.set.Endpoints {
		b.rows[e.ID] = endpointRows{b.rowOf[e.Ingress], b.rowOf[e.Egress]}
	}
}

// publish returns a table of what the builder holds.
func (b *builder) publish() *Table {
	t := &Table{rows: b.rows}
	if b.paint16 != nil {
		t.class16 = b.paint16.publish()
	} else {
		t.class32 = b.paint32.publish()
	}
	b.book.publish(t, b.ports)
	t.prepare()
	return t
}
