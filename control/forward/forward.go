// Package forward judges what the host's NAT makes of pods' calls to Services,
// where the kernel knows it: behind the translation of the destination.
//
// A pod's link sees a call before the host has chosen a backend. If the pod may
// reach some of them and not all, the link lets the call pass only if something
// judges the choice. For a backend on this node that is the backend's own link.
// For the others it is a Guard: tables of nftables that hold calls, the pods'
// addresses and what they call, and ways, to where such calls may go. Packets of
// a connection that was opened as such a call, in either direction, are dropped
// unless it leads one of the ways: what the Guard was not told is closed, and so
// a backend that the NAT knows earlier than the agent does. A connection that
// may not go on is cut at its next packet.
//
// A Planner finds calls and ways from compiled rules. Calls that are allowed or
// denied as a whole are none, so that most nodes have no table. A packet that the
// host forwards, or takes, pays a look-up of its connection's tuple in a hash if
// there is a table, and a second one if its call is guarded. A forwarded UDP packet
// took 3.3 µs with conntrack and NAT and no table of the Guard, 4.3 beside 1,000
// guarded calls of a family, and 4.5 as one of them (BenchmarkForwarded, AMD EPYC in a
// virtual machine, Linux 6.18).
//
// What is dropped is told as well, if the kernel can: a group of NFLOG gets the
// beginnings of packets as they are where they are dropped, so many a second of one
// pod, end and port, and a Log reads them. The drop is the same whether anybody does;
// in a flood a packet costs 0.3 µs more where drops are told.
//
// A Guard may be used by several goroutines, a Planner by one.
package forward

import (
	"errors"
	"maps"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// Tuple is where a connection of a pod goes, or should go when the pod opens it.
type Tuple struct {
	Src, Dst netip.Addr // of one family, unmapped
	Proto    packet.Proto
	Port     uint16
}

// Set is a set of Tuples.
type Set map[Tuple]struct{}

// Guard is the tables of one node.
type Guard struct {
	mu       sync.Mutex
	families [2]family
	dropped  uint64 // by tables that have gone
	tell     attrs  // tells NFLOG what is dropped; nil: nobody is told
	mute     error  // why the kernel can't
}

// family is the state of the table of one address family.
type family struct {
	table
	calls, ways Set
	known       bool   // the kernel's table is of our making, and has just that
	there       bool   // the kernel has one, or may have
	handle      uint64 // of the table that is of our making
}

// Adopt returns a Guard that has what an earlier agent left, and tells a group of
// NFLOG what it drops, unless that is 0.
func Adopt(group uint16) (*Guard, error) {
	g := &Guard{families: [2]family{{table: table4}, {table: table6}}}
	if group != 0 {
		g.tell = logged(group)
	}
	var errs []error
	for i := range g.families {
		f := &g.families[i]
		f.calls, f.ways = Set{}, Set{}
		if _, err := f.look(); absent(err) {
			continue
		}
		f.there = true
		calls, err1 := f.elements("calls")
		ways, err2 := f.elements("ways")
		if err := errors.Join(err1, err2); err != nil {
			errs = append(errs, err)
			continue
		}
		f.calls, f.ways = calls, ways
	}
	return g, errors.Join(errs...)
}

// absent reports whether there is no table, or nothing that could have one.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL)
}

// Sets returns the calls that are guarded and the ways that they may go. They
// must not be changed.
func (g *Guard) Sets() (calls, ways Set) {
	g.mu.Lock()
	defer g.mu.Unlock()
	calls, ways = Set{}, Set{}
	for i := range g.families {
		maps.Copy(calls, g.families[i].calls)
		maps.Copy(ways, g.families[i].ways)
	}
	return calls, ways
}

// Apply replaces calls and ways in one transaction, both families together. After
// an error either what was in force before is so still, or somebody has taken the
// tables away: nothing may rely on them until an Apply succeeds.
func (g *Guard) Apply(calls, ways Set) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.apply(calls, ways)
	if err == nil {
		return nil
	}
	// Changes may have met a table that is not as it was left. Make it anew.
	for i := range g.families {
		g.families[i].known = false
	}
	if err = g.apply(calls, ways); err == nil || g.tell == nil || !absent(err) {
		return err
	}
	// It may lack nothing but what tells of drops.
	tell := g.tell
	g.tell = nil
	if g.apply(calls, ways) != nil {
		g.tell = tell
		return err
	}
	g.mute = err
	return nil
}

// Mute returns why nothing tells of what the tables drop, of which Drops counts
// all: the kernel lacks what it takes. It is nil if something does, or if nothing
// was to be told.
func (g *Guard) Mute() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mute
}

func (g *Guard) apply(calls, ways Set) error {
	var b batch
	next := g.families
	var dropped uint64
	for i := range next {
		f := &next[i]
		f.calls, f.ways = f.of(calls), f.of(ways)
		now := &g.families[i]
		switch {
		case len(f.calls) > 0 && now.known && now.there:
			f.change(&b, "calls", now.calls, f.calls)
			f.change(&b, "ways", now.ways, f.ways)
			continue
		case now.there:
			n, _ := f.drops() // none, if there is no table
			dropped += n
			f.remove(&b)
		case len(f.calls) > 0:
			f.remove(&b) // somebody may have put one there
		}
		if f.known, f.there = true, len(f.calls) > 0; f.there {
			f.make(&b, g.tell)
			f.change(&b, "calls", nil, f.calls)
			f.change(&b, "ways", nil, f.ways)
		}
	}
	if err := b.commit(); err != nil {
		return err
	}
	for i := range next {
		if f := &next[i]; f.there && !(g.families[i].known && g.families[i].there) {
			f.handle, _ = f.look() // 0 is none's: it is made again
		}
	}
	g.families, g.dropped = next, g.dropped+dropped
	return nil
}

// Intact reports whether the tables are there that should be, and no others: who
// flushes the whole ruleset, as a firewall that restarts may, takes these along, and
// may put others there that were once saved with the rest.
func (g *Guard) Intact() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	intact := true
	for i := range g.families {
		f := &g.families[i]
		if !f.known {
			continue
		}
		switch handle, err := f.look(); {
		case err == nil && !f.there, err == nil && handle != f.handle:
			f.known, f.there, intact = false, true, false
		case f.there && errors.Is(err, unix.ENOENT):
			f.known, intact = false, false
		}
	}
	return intact
}

// Drops returns how many packets were dropped.
func (g *Guard) Drops() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := g.dropped
	for i := range g.families {
		if f := &g.families[i]; f.known && f.there {
			n, _ := f.drops()
			sum += n
		}
	}
	return sum
}

// Remove takes all tables away, whoever made them.
func Remove() error {
	var b batch
	for _, t := range []table{table4, table6} {
		if _, err := t.look(); err == nil {
			t.remove(&b)
		} else if !absent(err) {
			return err
		}
	}
	return b.commit()
}
