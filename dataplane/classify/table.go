// Package classify answers, for batches of packets, what a rule.Set says:
// which verdict, and because of which rule. A Table is immutable; any number
// of goroutines may read it, and none of them ever waits or allocates.
//
// A lookup has three stages, each of which handles a whole batch before the
// next begins:
//
//  1. remote address → class, the set of peers that it belongs to; protocol
//     and port → port class;
//  2. row (an endpoint's program), class and port class → profile and cell;
//  3. profile and cell → verdict.
//
// Tiers, passes, order and defaults are resolved when the table is built, by
// partition: peers split addresses, and port ranges split ports, into the
// coarsest classes that rules of this node tell apart. Nothing on the way of a
// lookup branches on what it finds. Identifiers are narrow, and so tables
// small, until there are too many of them; then wider tables take over, IPv4
// addresses too scattered for a trie go into the hash, and answers stay the
// same.
//
// For the narrow tables there is assembly on amd64: the same loads, in less
// than half of the instructions (42 for IPv4, 71 for bound IPv6 addresses), because it knows
// that the offsets in a table lead into the table, which the builder promises
// and tests check. Everything else, other machines, and the race detector have
// the stages in Go. bench/acl/README.md has what lookups and builds take, beside
// DPDK's librte_acl, and where the time goes.
//
// Build makes a Table of a Set. An Updater makes each Table from the one
// before it: 7 to 20 µs for a pod with known labels among 50,000, 30 to 50 µs with
// new ones, 0.1 to 0.2 ms for a policy, whether it names pods or other CIDRs; up to
// 4 ms if it is the first to name what many pods are.
package classify

import (
	"reflect"

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

// Free is the verdict on what no policy has a say in.
const Free = allowBit

// maxCause is the largest CauseID that a Verdict can carry.
const maxCause = rule.CauseID(^uint32(0) >> causeShift)

func newVerdict(c rule.CauseID) Verdict { return Verdict(c) << causeShift }

// Allowed reports whether the packet may pass, by an audited deny included.
func (v Verdict) Allowed() bool { return v&allowBit != 0 }

// Audit reports that a deny was found that is not enforced.
func (v Verdict) Audit() bool { return v&auditBit != 0 }

// Log reports that a rule on the way asks for a report of the flow.
func (v Verdict) Log() bool { return v&logBit != 0 }

// Table is a Set made ready for lookups. Of each pair of narrow and wide
// parts one is in use: the wide one where identifiers don't fit into the
// narrow one.
type Table struct {
	origin origin
	rows   []endpointRows // by endpoint.ID

	class16   addresses[uint16]
	class32   addresses[uint32]
	portNodes []uint32 // protocol<<8 + the port's upper byte → block of …
	port8     []uint8  // + the port's lower byte → port class
	port32    []uint32
	records   records // by Row
	profile8  []uint8 // page*pageSize + class%pageSize → profile
	profile16 []uint16
	profile32 []uint32
	cells     []Verdict // row's + profile*unit + local port class → verdict
	fast      tables    // the same for assembly
}

type endpointRows struct{ in, out Row }

// A profile is the verdicts that a row has for one class, by local port class.
// It takes whole units of cells, half a cache line each; its number is where it
// begins among the units of its row.
const unit = 8

// pageSize is how many profiles of a row make a page. Most rows have the same
// profile for most classes, so that most pages are equal and stored once.
const pageSize = 64

// Set returns what the table was built from. After an Update that is spelt
// out at the first call, which takes milliseconds where there are many
// addresses.
func (t *Table) Set() *rule.Set { return t.origin.get() }

// Generation returns that of the Set.
func (t *Table) Generation() uint64 { return t.origin.head.Generation }

// Endpoints returns those of the Set.
func (t *Table) Endpoints() []rule.Endpoint { return t.origin.head.Endpoints }

// Causes returns those of the Set, by rule.CauseID.
func (t *Table) Causes() []rule.Cause { return t.origin.head.Causes }

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

// Bytes returns the memory that lookups may touch, what the table shares with
// others included.
func (t *Table) Bytes() uint64 {
	return t.class16.bytes() + t.class32.bytes() + size(t.portNodes) + size(t.port8) + size(t.port32) +
		size(t.rows) + size(t.records.bytes) + size(t.profile8) + size(t.profile16) + size(t.profile32) +
		size(t.cells)
}

func (a *addresses[C]) bytes() uint64 {
	return size(a.nodes) + size(a.leaf) + size(a.groups) + size(a.nodes6) +
		uint64(len(a.parts))*slots*32
}

func size[T any](s []T) uint64 { return uint64(len(s)) * uint64(reflect.TypeFor[T]().Size()) }
