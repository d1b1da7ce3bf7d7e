package store

import (
	"net/netip"
	"time"

	"github.com/sluice-net/sluice/control/policy"
)

// maxChanges bounds the journal: who is further behind looks at everything.
const maxChanges = 1 << 16

// Change is one thing that a transaction changed. Exactly one of its fields,
// beside Generation and At, is set.
type Change struct {
	Generation  uint64        // of the transaction
	At          time.Time     // when that began
	Identity    *Identity     // appeared, vanished, or has other addresses
	Addr        netip.Addr    // other pods or nodes have it
	Pod         Key           // appeared, vanished, or is another
	Policy      policy.Origin // other versions of it are in force
	Audit       string        // namespace that became an audit, or is none any more
	Nodes       bool          // some node has other addresses
	NetworkSets bool          // some network set is another, or its namespace
	Outside     bool          // a Service, an EndpointSlice or a group of CIDRs is another
}

// journal lists what changed, oldest first. Changes up to base are forgotten.
type journal struct {
	base    uint64
	changes []Change
}

// note writes a change of the transaction that is under way.
func (st *state) note(c Change) {
	c.Generation, c.At = st.generation+1, st.began
	j := &st.journal
	if len(j.changes) >= 2*maxChanges {
		j.base = j.changes[maxChanges-1].Generation
		n := copy(j.changes, j.changes[maxChanges:])
		clear(j.changes[n:])
		j.changes = j.changes[:n]
	}
	j.changes = append(j.changes, c)
}

// noteHost notes the addresses of a pod that uses its node's network.
func (st *state) noteHost(p *Pod) {
	st.note(Change{Nodes: true})
	st.noteAddrs(p.Addrs())
}

func (st *state) noteAddrs(addrs []netip.Addr) {
	for _, a := range addrs {
		st.note(Change{Addr: a})
	}
}

// Since returns what changed after a generation, oldest first; one thing may
// come several times. It returns false if that has been forgotten.
func (v View) Since(generation uint64) ([]Change, bool) {
	j := &v.st.journal
	if generation < j.base {
		return nil, false
	}
	// What is asked for is nearly always the end.
	n := len(j.changes)
	for n > 0 && j.changes[n-1].Generation > generation {
		n--
	}
	return j.changes[n:], true
}
