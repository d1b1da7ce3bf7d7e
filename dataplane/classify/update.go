package classify

import (
	"slices"

	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Updater makes each Table from the one before it. Tables share what hasn't
// changed, and are as immutable as those of Build: readers of old ones go on
// undisturbed, readers of new ones need no more than an atomic pointer to
// them. An Updater belongs to one goroutine.
type Updater struct {
	set      rule.Set // of the latest table, but for its Addresses
	bindings bindings
	table    *Table

	builder *builder
	words   int  // of all slabs when they were built
	ports   int  // classes of ports then
	stale   bool // the builder isn't what set and bindings say
}

// NewUpdater builds the first Table.
func NewUpdater(set *rule.Set) (*Updater, error) {
	u := &Updater{stale: true}
	if _, err := u.Replace(set); err != nil {
		return nil, err
	}
	return u, nil
}

// Table returns the latest table.
func (u *Updater) Table() *Table { return u.table }

// Update applies a rule.Delta. After an error, which says what is wrong with it,
// the Updater and its Table are as before.
func (u *Updater) Update(d rule.Delta) (*Table, error) {
	next := applyDelta(&d, u.set)
	programs, err := checkDelta(&d, &next)
	if err != nil {
		return nil, err
	}
	bound := u.bindings.with(&d)
	if err := u.advance(&next, bound, func(b *builder) bool { return b.apply(&d, bound, programs) }); err != nil {
		return nil, err
	}
	u.table.origin.head, u.table.origin.bindings = next, bound
	return u.table, nil
}

// Replace makes a table of another Set, at the price of the differences and
// of a look at every address. It is cheap where equal peers have kept their
// numbers; whatever else has been renumbered doesn't matter.
func (u *Updater) Replace(set *rule.Set) (*Table, error) {
	programs, err := usedPrograms(set)
	if err == nil {
		err = checkPeers(set, programs, 0, true)
	}
	var addresses []rule.Address
	if err == nil {
		addresses, err = sortedAddresses(set)
	}
	if err != nil {
		return nil, err
	}
	next := *set
	next.Addresses = nil
	next.Identities = slices.Clip(next.Identities) // so that appending copies them
	old := u.bindings
	if err := u.advance(&next, bindings{base: addresses}, func(b *builder) bool {
		return b.replace(u.set.Blocks, old.all(), addresses, programs)
	}); err != nil {
		return nil, err
	}
	u.table.origin.from(set)
	return u.table, nil
}

// advance brings the builder to the next set by change, or builds it anew if
// change gives up. If that fails too, the Updater stays where it was, and the
// next change begins with building.
func (u *Updater) advance(next *rule.Set, bound bindings, change func(*builder) bool) error {
	if u.stale || u.worn() {
		u.stale = true
	} else {
		u.builder.set = *next
		u.stale = !change(u.builder)
	}
	if u.stale {
		set := *next
		set.Addresses = bound.all()
		b, err := newBuilder(&set)
		if err != nil {
			return err
		}
		b.reserve()
		u.builder, u.words, u.ports, u.stale = b, b.words(), b.ports.classes, false
	}
	u.set, u.bindings = *next, bound
	u.table = u.builder.publish()
	return nil
}

// worn reports whether so much is left of what nobody uses any more that building
// anew is due. What told ports apart once does so until then, for every row.
func (u *Updater) worn() bool {
	b := u.builder
	return b.words() > 4*u.words+1<<20 || b.ports.classes > u.ports+u.ports/2+128
}

// apply brings the builder, whose set is the next one already, to the next
// table. On false it has given up, in any state.
func (b *builder) apply(d *rule.Delta, bound bindings, programs []rule.ProgramID) bool {
	changed := b.changedPrograms(programs)
	before := uint32(b.classes.sets.len())
	added := b.peers.use(&b.set, changed)
	moved := b.identify(added)
	if (d.Blocks != nil || b.blocked(added)) && !b.repaint(bound) {
		if b.layOut(bound.all()) != nil {
			return false
		}
	} else if !b.move(append(movedPoints(bound, moved), deltaPoints(d)...)) {
		return false
	}
	return b.finish(before, changed, d.Endpoints != nil || d.Programs != nil)
}

// replace is apply for a whole set, given the blocks and addresses of the old
// one.
func (b *builder) replace(blocks []rule.Block, old, addresses []rule.Address, programs []rule.ProgramID) bool {
	changed := b.changedPrograms(programs)
	before := uint32(b.classes.sets.len())
	added := b.peers.use(&b.set, changed)
	was := b.classes.identity
	b.classes.identity = make([]uint32, len(b.set.Identities))
	for i, ids := range b.set.Identities {
		b.classes.identity[i] = b.classes.of(ids, &b.peers)
	}
	if (b.blocked(added) || !slices.EqualFunc(blocks, b.set.Blocks, equalBlocks)) &&
		!b.repaint(bindings{base: addresses}) {
		if b.layOut(addresses) != nil {
			return false
		}
	} else if !b.move(differences(old, addresses, was, b.classes.identity)) {
		return false
	}
	return b.finish(before, changed, true)
}

// finish brings the rows in step with the classes.
func (b *builder) finish(before uint32, changed []rule.ProgramID, endpoints bool) bool {
	if !b.knowPorts(changed) || !b.addClasses(before, changed) {
		return false
	}
	if len(changed) > 0 {
		b.compile(changed)
	}
	if endpoints {
		b.index()
	}
	return b.book.check() == nil
}

// differences lists the addresses whose identity is of another class, or that
// are bound in one list only; both are sorted.
func differences(old, next []rule.Address, was, is []uint32) (out []point) {
	for len(old) > 0 || len(next) > 0 {
		order := 0
		switch {
		case len(old) == 0:
			order = 1
		case len(next) == 0:
			order = -1
		default:
			order = old[0].Addr.Compare(next[0].Addr)
		}
		switch {
		case order < 0:
			out = append(out, point{addr: packet.AddrFrom(old[0].Addr), identity: unbound})
		case order > 0 || was[old[0].Identity] != is[next[0].Identity]:
			out = append(out, point{addr: packet.AddrFrom(next[0].Addr), identity: next[0].Identity})
		}
		if order <= 0 {
			old = old[1:]
		}
		if order >= 0 {
			next = next[1:]
		}
	}
	return out
}
