package classify

import (
	"slices"
	"sync"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// unbound as the Identity of a change says that the address has none any more.
const unbound = ^uint32(0)

// bindings are the addresses of a Set: those of an earlier one, and what was
// bound and unbound since, the last change of an address being the valid one.
type bindings struct {
	base    []rule.Address // sorted, unique
	changes []rule.Address
}

// with returns the bindings after a delta.
func (b bindings) with(d *rule.Delta) bindings {
	for _, a := range d.Unbind {
		b.changes = append(b.changes, rule.Address{Addr: a.Unmap().WithZone(""), Identity: unbound})
	}
	for _, a := range d.Bind {
		a.Addr = a.Addr.Unmap().WithZone("")
		b.changes = append(b.changes, a)
	}
	if len(b.changes) > max(1<<12, len(b.base)/8) {
		return bindings{base: b.all()}
	}
	return b
}

// all returns the addresses as one sorted list.
func (b bindings) all() []rule.Address {
	if len(b.changes) == 0 {
		return b.base
	}
	byAddr := func(a, b rule.Address) int { return a.Addr.Compare(b.Addr) }
	changes := slices.Clone(b.changes)
	slices.SortStableFunc(changes, byAddr)
	out := make([]rule.Address, 0, len(b.base)+len(changes))
	base := b.base
	for i, c := range changes {
		if i+1 < len(changes) && changes[i+1].Addr == c.Addr {
			continue
		}
		n, found := slices.BinarySearchFunc(base, c, byAddr)
		out = append(out, base[:n]...)
		if base = base[n:]; found {
			base = base[1:]
		}
		if c.Identity != unbound {
			out = append(out, c)
		}
	}
	return append(out, base...)
}

// origin is the Set of a table, spelt out when it is asked for.
type origin struct {
	head     rule.Set // but for its Addresses
	bindings bindings

	once sync.Once
	set  *rule.Set
}

// from is the origin of a table that was made of a whole set.
func (o *origin) from(set *rule.Set) {
	o.head, o.set = *set, set
	o.once.Do(func() {})
}

func (o *origin) get() *rule.Set {
	o.once.Do(func() {
		set := o.head
		set.Addresses = o.bindings.all()
		o.set = &set
	})
	return o.set
}
