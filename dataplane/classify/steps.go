package classify

import (
	"slices"
	"sort"

	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// words is how much memory all slabs use that only grow.
func (b *builder) words() int {
	n := b.book.words() + len(b.ports.leaf)
	if b.paint16 != nil {
		n += b.paint16.words()
	} else {
		n += b.paint32.words()
	}
	return n
}

// reserve makes room for updates.
func (b *builder) reserve() {
	if b.paint16 != nil {
		b.paint16.reserve()
	} else {
		b.paint32.reserve()
	}
}

// changedPrograms lists those that have no row yet, or not the right one.
func (b *builder) changedPrograms(programs []rule.ProgramID) (changed []rule.ProgramID) {
	for _, id := range programs {
		if int(id) >= len(b.rowOf) || b.rowOf[id] == DenyRow ||
			!equalPrograms(b.book.rows[b.rowOf[id]].program, &b.set.Programs[id]) {
			changed = append(changed, id)
		}
	}
	return changed
}

// identify finds the classes of identities that are new, or have peers that
// are. It returns which of the old ones got another class.
func (b *builder) identify(added []rule.PeerID) (moved []bool) {
	if len(added) > 0 {
		isNew := make([]bool, b.set.Peers)
		for _, p := range added {
			isNew[p] = true
		}
		moved = make([]bool, len(b.set.Identities))
		for i := range b.classes.identity {
			if slices.ContainsFunc(b.set.Identities[i], func(p rule.PeerID) bool { return isNew[p] }) {
				b.classes.identity[i] = b.classes.of(b.set.Identities[i], &b.peers)
				moved[i] = true
			}
		}
	}
	for i := len(b.classes.identity); i < len(b.set.Identities); i++ {
		b.classes.identity = append(b.classes.identity, b.classes.of(b.set.Identities[i], &b.peers))
	}
	return moved
}

// blocked reports whether any of the peers has blocks.
func (b *builder) blocked(peers []rule.PeerID) bool {
	return len(peers) > 0 && slices.ContainsFunc(b.set.Blocks, func(block rule.Block) bool {
		return slices.Contains(peers, block.Peer)
	})
}

// movedPoints lists all addresses that have a moved identity, and some more.
func movedPoints(bound bindings, moved []bool) (out []point) {
	if moved == nil {
		return nil
	}
	for _, a := range bound.base {
		if moved[a.Identity] {
			out = append(out, point{addr: packet.AddrFrom(a.Addr), identity: a.Identity})
		}
	}
	for _, a := range bound.changes {
		out = append(out, point{addr: packet.AddrFrom(a.Addr), identity: a.Identity})
	}
	return out
}

// move gives addresses the classes of their identities, in order.
func (b *builder) move(list []point) bool {
	for i := range list {
		p := &list[i]
		spans := b.space.spans6
		if p.addr.Is4() && !b.space.sparse {
			spans = b.space.spans4
		}
		s := spans[sort.Search(len(spans), func(k int) bool { return p.addr.Less(spans[k].start) })-1]
		if p.class = s.free; p.identity != unbound {
			b.classes.enter(s.fixed)
			p.class = b.classes.bound(p.identity)
		}
	}
	classes := b.classes.sets.len()
	if b.paint16 != nil {
		return b.paint16.move(list, classes)
	}
	return b.paint32.move(list, classes)
}

// knowPorts makes port classes for the programs' sets of ports.
func (b *builder) knowPorts(programs []rule.ProgramID) bool {
	known := b.ports.sets.len()
	for _, id := range programs {
		b.ports.addAll(&b.set.Programs[id])
	}
	if b.ports.sets.len() == known {
		return true
	}
	next := &ports{sets: b.ports.sets}
	next.build()
	b.book.remap(b.ports.origins(next))
	b.ports = next
	return true
}

// maxJudged is how many profiles of new classes are judged one by one.
const maxJudged = 1 << 14

// addClasses gives the rows that are not about to be compiled profiles for
// the classes from the first new one on.
func (b *builder) addClasses(first uint32, except []rule.ProgramID) bool {
	n := uint32(b.classes.sets.len())
	if int(n) > b.book.columns*pageSize {
		return false
	}
	skip := map[Row]bool{DenyRow: true}
	for _, id := range except {
		if int(id) < len(b.rowOf) {
			skip[b.rowOf[id]] = true
		}
	}
	judged := map[Row][]uint32{}
	pairs := 0
	for class := first; class < n; class++ {
		for _, p := range b.classes.sets.at(class) {
			if int(p) >= len(b.book.users) {
				continue
			}
			for _, row := range b.book.users[p] {
				if list := judged[row]; !skip[row] && (len(list) == 0 || list[len(list)-1] != class) {
					judged[row] = append(list, class)
					pairs++
				}
			}
		}
		if pairs > maxJudged {
			return false
		}
	}
	w := b.rower()
	for row, list := range judged {
		r := &b.book.rows[row]
		w.begin(r.program, r.local, r.width)
		for _, class := range list {
			b.book.addClass(row, class, w.judgeSet(r.program, b.classes.sets.at(class)))
		}
	}
	return true
}
