// Package classify answers, for batches of packets, what a rule.Set says:
// which verdict, and because of which rule. A Table is immutable; any number
// of goroutines may read it, and none of them ever waits or allocates.
//
// A lookup has three stages, each of which handles the whole batch before the
// next begins:
//
//  1. remote address → class, the set of peers that it belongs to;
//  2. protocol and port → port class;
//  3. row (an endpoint's program), class and port class → verdict.
//
// Tiers, passes, order and defaults are resolved when the table is built.
package classify

import (
	"fmt"
	"slices"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Row names the compiled program of one endpoint and direction in one Table.
type Row uint32

// DenyRow denies everything. It is the row of endpoints that the Set doesn't
// know, in every Table.
const DenyRow Row = 0

// Query is one question: may the endpoint and direction of Row exchange a
// packet with Remote?
type Query struct {
	Remote packet.Addr
	Row    Row
	Port   uint16 // destination port; for ICMP and ICMPv6 type<<8 | code
	Proto  packet.Proto
}

// Verdict is the answer: three bits and the cause above them. The zero
// Verdict denies.
type Verdict uint32

const (
	allowBit Verdict = 1 << iota
	auditBit
	logBit
	causeShift = iota
)

// maxCause is the largest CauseID that a Verdict can carry.
const maxCause = rule.CauseID(^uint32(0) >> causeShift)

func newVerdict(c rule.CauseID) Verdict { return Verdict(c) << causeShift }

// Allowed reports whether the packet may pass, by an audited deny included.
func (v Verdict) Allowed() bool { return v&allowBit != 0 }

// Audit reports that a deny was found that is not enforced.
func (v Verdict) Audit() bool { return v&auditBit != 0 }

// Log reports that a rule on the way asks for a report of the flow.
func (v Verdict) Log() bool { return v&logBit != 0 }

// Table is a Set made ready for lookups.
type Table struct {
	set  *rule.Set
	rows []endpointRows // by endpoint.ID

	starts []packet.Addr // of each stretch of addresses with one class
	class  []uint32

	proto      [256]uint32
	portTable  []uint32
	headers    []header // by Row
	matrix     []uint32
	local      []uint32
	cells      []Verdict
	localWidth uint32
}

type endpointRows struct{ in, out Row }

// header says where a row's parts begin.
type header struct {
	matrix uint32 // + class → profile
	cells  uint32 // + profile × width + local port class → verdict
	width  uint32
	local  uint32 // + port class → local port class
}

// Set returns what the table was built from.
func (t *Table) Set() *rule.Set { return t.set }

// Row returns the row of an endpoint and direction.
func (t *Table) Row(id endpoint.ID, d rule.Direction) Row {
	if uint64(id) >= uint64(len(t.rows)) {
		return DenyRow
	}
	if d == rule.Egress {
		return t.rows[id].out
	}
	return t.rows[id].in
}

// Cause returns the cause that a verdict carries.
func (t *Table) Cause(v Verdict) rule.CauseID { return rule.CauseID(v >> causeShift) }

// Build compiles a Set. It refuses a set that contradicts itself.
func Build(set *rule.Set) (*Table, error) {
	t := &Table{set: set}
	programs, err := usedPrograms(set)
	if err != nil {
		return nil, err
	}
	used, err := usedPeers(set, programs)
	if err != nil {
		return nil, err
	}
	classes, err := newClasses(set, &used)
	if err != nil {
		return nil, err
	}
	if err := t.buildAddresses(set, &used, classes); err != nil {
		return nil, err
	}
	t.buildRows(set, programs, &used, classes)
	return t, nil
}

// maxEndpoint bounds the slots of local endpoints, and so the index of them.
const maxEndpoint = endpoint.ID(1 << 20)

func usedPrograms(set *rule.Set) ([]rule.ProgramID, error) {
	var out []rule.ProgramID
	for i, e := range set.Endpoints {
		if e.ID == endpoint.None || e.ID > maxEndpoint {
			return nil, fmt.Errorf("endpoint %d: want 1 to %d", e.ID, maxEndpoint)
		}
		for _, p := range []rule.ProgramID{e.Ingress, e.Egress} {
			if int(p) >= len(set.Programs) {
				return nil, fmt.Errorf("endpoint %d: program %d: the set has %d", e.ID, p, len(set.Programs))
			}
			out = append(out, p)
		}
		if i > 0 && e.ID <= set.Endpoints[i-1].ID {
			return nil, fmt.Errorf("endpoint %d: not in ascending order", e.ID)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	for _, p := range out {
		if err := checkProgram(&set.Programs[p]); err != nil {
			return nil, fmt.Errorf("program %d: %w", p, err)
		}
	}
	return out, nil
}

func checkProgram(p *rule.Program) error {
	for t := range p.Tiers {
		tier := &p.Tiers[t]
		if tier.DefaultCause > maxCause || tier.Default > rule.Deny {
			return fmt.Errorf("tier %q: default %v of cause %d", tier.Name, tier.Default, tier.DefaultCause)
		}
		for i := range tier.Rules {
			if r := &tier.Rules[i]; r.Cause > maxCause || r.Action > rule.Deny {
				return fmt.Errorf("tier %q: rule %d: %v of cause %d", tier.Name, i, r.Action, r.Cause)
			}
		}
	}
	return nil
}

func (t *Table) buildAddresses(set *rule.Set, used *peers, c *classes) error {
	spans4, spans6, err := spans(set, used, c)
	if err != nil {
		return err
	}
	points4, points6, err := points(set)
	if err != nil {
		return err
	}
	below, above := cut(spans6, v4First, next(v4Last))
	i, _ := slices.BinarySearchFunc(points6, v4First, func(p point, a packet.Addr) int {
		if p.addr.Less(a) {
			return -1
		}
		return 1
	})
	t.merge(below, points6[:i], c)
	t.merge(spans4, points4, c)
	t.merge(above, points6[i:], c)
	return nil
}

// cut removes the v4-mapped addresses, which are IPv4's, from IPv6's spans.
func cut(all []span, first, after packet.Addr) (below, above []span) {
	n := 0
	for n < len(all) && all[n].start.Less(first) {
		n++
	}
	m := n
	for m < len(all) && !after.Less(all[m].start) {
		m++
	}
	head := all[m-1]
	head.start = after
	return all[:n], append([]span{head}, all[m:]...)
}

func (t *Table) merge(spans []span, points []point, c *classes) {
	for i, s := range spans {
		t.put(s.start, s.free)
		for len(points) > 0 && (i+1 == len(spans) || points[0].addr.Less(spans[i+1].start)) {
			t.put(points[0].addr, c.bound(points[0].identity, s.fixed))
			if after := next(points[0].addr); after != (packet.Addr{}) {
				t.put(after, s.free)
			}
			points = points[1:]
		}
	}
}

func (t *Table) put(start packet.Addr, class uint32) {
	if n := len(t.starts); n > 0 && t.starts[n-1] == start {
		t.class[n-1] = class
		return
	}
	t.starts = append(t.starts, start)
	t.class = append(t.class, class)
}

func (t *Table) buildRows(set *rule.Set, programs []rule.ProgramID, used *peers, c *classes) {
	ports := newPorts()
	for _, id := range programs {
		for _, tier := range set.Programs[id].Tiers {
			for i := range tier.Rules {
				ports.add(&tier.Rules[i])
			}
		}
	}
	ports.build()
	t.proto, t.portTable = ports.proto, ports.table
	w := &rower{peers: used, ports: ports, classes: c.sets.len()}
	w.list, w.starts = c.members(used.count)
	t.append(row{profile: make([]uint32, w.classes), local: make([]uint32, ports.classes), width: 1, cells: make([]Verdict, 1)})
	rowOf := make([]Row, len(set.Programs))
	for _, id := range programs {
		rowOf[id] = t.append(w.compile(&set.Programs[id]))
	}
	if n := len(set.Endpoints); n > 0 {
		t.rows = make([]endpointRows, set.Endpoints[n-1].ID+1)
	}
	for _, e := range set.Endpoints {
		t.rows[e.ID] = endpointRows{rowOf[e.Ingress], rowOf[e.Egress]}
	}
}

func (t *Table) append(r row) Row {
	t.headers = append(t.headers, header{
		matrix: uint32(len(t.matrix)), cells: uint32(len(t.cells)),
		width: uint32(r.width), local: uint32(len(t.local)),
	})
	t.matrix = append(t.matrix, r.profile...)
	t.local = append(t.local, r.local...)
	t.cells = append(t.cells, r.cells...)
	return Row(len(t.headers) - 1)
}
