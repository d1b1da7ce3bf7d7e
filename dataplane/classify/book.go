package classify

import (
	"fmt"
	"slices"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// book holds the rows of a builder. Its slabs only ever grow; records are
// copied before one of them changes.
type book struct {
	rows    []bookRow
	users   [][]Row // by dense peer: rows that use it, or did once, in order
	columns int     // pages of a row
	classes int     // port classes
	pages   interner
	page    []uint32 // scratch
	cells   []Verdict
	widest  int // largest number of units of a row

	// What is published: records of the rows that haven't changed since, and
	// narrow copies of pages.
	records   records
	changed   []Row
	profile8  []uint8
	profile16 []uint16
}

// bookRow is a row as updates change it.
type bookRow struct {
	program *rule.Program
	cells   uint32   // where its cells begin
	units   int      // of cells
	width   int      // local port classes
	local   []uint32 // by port class
	pages   []uint32 // by class/pageSize
	changed bool     // and so among book.changed
}

// stride is how many units the verdicts of a profile take.
func (r *bookRow) stride() int { return (r.width + unit - 1) / unit }

// appendCells appends the verdicts of a profile, and fills its last unit up.
func appendCells[V Verdict | uint32](cells []Verdict, verdicts []V) []Verdict {
	for _, v := range verdicts {
		cells = append(cells, Verdict(v))
	}
	return append(cells, make([]Verdict, -len(verdicts)&(unit-1))...)
}

func newBook(portClasses, classes int) book {
	b := book{classes: portClasses, columns: (int(slack(classes)) + pageSize - 1) / pageSize, page: make([]uint32, pageSize)}
	b.pages.add(b.page) // page 0 is the default profile
	b.put(DenyRow, &rule.Program{}, row{local: make([]uint32, portClasses), width: 1, cells: make([]Verdict, 1)}, &peers{})
	return b
}

// put writes a row over an old one, or for DenyRow behind the last one.
func (b *book) put(at Row, program *rule.Program, r row, p *peers) Row {
	if at == DenyRow {
		at = Row(len(b.rows))
		b.rows = append(b.rows, bookRow{})
	}
	x := bookRow{program: program, cells: uint32(len(b.cells)), width: r.width, local: r.local,
		pages: make([]uint32, b.columns), changed: b.rows[at].changed}
	for cells := r.cells; len(cells) > 0; cells = cells[r.width:] {
		b.cells = appendCells(b.cells, cells[:r.width])
		x.units += x.stride()
	}
	b.widest = max(b.widest, x.units)
	for i := range x.pages {
		from := min(i*pageSize, len(r.profile))
		clear(b.page)
		for k, p := range r.profile[from:min(from+pageSize, len(r.profile))] {
			b.page[k] = p * uint32(x.stride())
		}
		x.pages[i] = b.pages.add(b.page)
	}
	b.rows[at] = x
	b.touch(at)
	for len(b.users) < int(p.count) {
		b.users = append(b.users, nil)
	}
	program.EachRule(func(r *rule.Rule) {
		r.EachPeer(func(id rule.PeerID) {
			u := &b.users[p.dense[id]]
			if i, found := slices.BinarySearch(*u, at); !found {
				*u = slices.Insert(*u, i, at)
			}
		})
	})
	return at
}

// touch notes that the record of a row isn't what it should be.
func (b *book) touch(at Row) {
	if r := &b.rows[at]; !r.changed {
		r.changed = true
		b.changed = append(b.changed, at)
	}
}

// addClass gives a row the profile of a new class.
func (b *book) addClass(at Row, class uint32, verdicts []uint32) {
	profile := b.profile(at, verdicts)
	if profile == 0 {
		return
	}
	page := &b.rows[at].pages[class/pageSize]
	copy(b.page, b.pages.at(*page))
	b.page[class%pageSize] = profile
	*page = b.pages.add(b.page)
	b.touch(at)
}

// profile returns the number of a row's profile, a new one if need be.
func (b *book) profile(at Row, verdicts []uint32) uint32 {
	r := &b.rows[at]
	cells := b.cells[r.cells : int(r.cells)+r.units*unit]
search:
	for from := 0; from < r.units; from += r.stride() {
		for i, v := range verdicts {
			if cells[from*unit+i] != Verdict(v) {
				continue search
			}
		}
		return uint32(from)
	}
	if int(r.cells)+len(cells) != len(b.cells) {
		r.cells = uint32(len(b.cells))
		b.cells = append(b.cells, cells...)
		b.touch(at)
	}
	b.cells = appendCells(b.cells, verdicts)
	r.units += r.stride()
	b.widest = max(b.widest, r.units)
	return uint32(r.units - r.stride())
}

// remap gives all rows local port classes for new port classes, each of which
// is a part of an old one.
func (b *book) remap(old []uint32) {
	for i := range b.rows {
		local := make([]uint32, 0, len(old))
		for _, class := range old {
			local = append(local, b.rows[i].local[class])
		}
		b.rows[i].local = local
		b.touch(Row(i))
	}
	b.classes = len(old)
}

// words is how much memory the slabs use, in words.
func (b *book) words() int { return len(b.pages.words) + len(b.cells) }

// check reports slabs that offsets of 32 bits can't address.
func (b *book) check() error {
	for _, n := range []int{len(b.pages.words), len(b.cells)} {
		if n > 1<<32-1 {
			return fmt.Errorf("%d rows: %d entries, want less than %d", len(b.rows), n, uint64(1)<<32)
		}
	}
	return nil
}

// publish hands the slabs to a table, and freezes them.
func (b *book) publish(t *Table, p *ports) {
	b.encode()
	t.records, t.cells = b.records, b.cells
	t.portNodes = p.nodes
	if b.classes <= 1<<8 {
		t.port8 = p.narrow()
	} else {
		t.port32 = p.leaf
	}
	switch {
	case b.widest <= 1<<8:
		b.profile8 = narrow(b.profile8, b.pages.words)
		t.profile8 = b.profile8
	case b.widest <= 1<<16:
		b.profile16 = narrow(b.profile16, b.pages.words)
		t.profile16 = b.profile16
	default:
		t.profile32 = b.pages.words
	}
}

// encode brings the records up to date.
func (b *book) encode() {
	layout := layRecords(b.classes, b.columns, b.pages.len())
	same := layout == b.records.layout
	if same && len(b.changed) == 0 {
		return
	}
	old := b.records
	b.records = records{layout, make([]byte, len(b.rows)*layout.stride)}
	if same {
		copy(b.records.bytes, old.bytes)
	}
	for i := range b.rows {
		if r := &b.rows[i]; r.changed || !same {
			b.records.put(Row(i), r)
			r.changed = false
		}
	}
	b.changed = b.changed[:0]
}

// narrow appends to a narrow copy what it lacks.
func narrow[N uint8 | uint16](have []N, words []uint32) []N {
	have = slices.Grow(have, len(words)-len(have))
	for _, w := range words[len(have):] {
		have = append(have, N(w))
	}
	return have
}
