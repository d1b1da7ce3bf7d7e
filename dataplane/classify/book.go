package classify

import (
	"fmt"
	"slices"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// book holds the rows of a builder, in slabs that only ever grow.
type book struct {
	headers []header
	rows    []bookRow
	users   [][]Row // by dense peer: rows that use it, or did once

	index   []uint32 // Table.pages
	columns int      // pages of a row
	pages   interner
	page    []uint32 // scratch
	local   []uint32
	classes int // port classes, entries of local for a row
	cells   []Verdict

	// Narrow copies of pages and local, as far as they are published.
	profile16 []uint16
	local8    []uint8
	widest    int // largest number of cells of a row
	shared    bool
	fresh     int // rows in index from here on aren't published
}

// bookRow is what updates need to know of a row.
type bookRow struct {
	program *rule.Program
	width   int // local port classes
	cells   int
}

func newBook(portClasses, classes int) book {
	b := book{classes: portClasses, columns: (int(slack(classes)) + pageSize - 1) / pageSize, page: make([]uint32, pageSize)}
	b.pages.add(b.page) // page 0 is the default profile
	b.put(DenyRow, &rule.Program{}, row{local: make([]uint32, portClasses), width: 1, cells: make([]Verdict, 1)}, &peers{})
	return b
}

// put writes a row over an old one, or for DenyRow behind the last one.
func (b *book) put(at Row, program *rule.Program, r row, p *peers) Row {
	h := header{pages: uint32(len(b.index)), ports: uint32(len(b.local)), cells: uint32(len(b.cells))}
	b.local = append(b.local, r.local...)
	b.cells = append(b.cells, r.cells...)
	b.widest = max(b.widest, len(r.cells))
	for i := range b.columns {
		from := min(i*pageSize, len(r.profile))
		clear(b.page)
		for k, p := range r.profile[from:min(from+pageSize, len(r.profile))] {
			b.page[k] = p * uint32(r.width)
		}
		b.index = append(b.index, b.pages.add(b.page)*pageSize)
	}
	b.own()
	if at == DenyRow {
		at = Row(len(b.headers))
		b.headers = append(b.headers, h)
		b.rows = append(b.rows, bookRow{})
	}
	b.headers[at] = h
	b.rows[at] = bookRow{program, r.width, len(r.cells)}
	for len(b.users) < int(p.count) {
		b.users = append(b.users, nil)
	}
	program.EachRule(func(r *rule.Rule) {
		r.EachPeer(func(id rule.PeerID) {
			if u := &b.users[p.dense[id]]; len(*u) == 0 || (*u)[len(*u)-1] != at {
				*u = append(*u, at)
			}
		})
	})
	return at
}

// own makes headers writable.
func (b *book) own() {
	if b.shared {
		b.headers, b.shared = slices.Clone(b.headers), false
	}
}

// addClass gives a row the profile of a new class.
func (b *book) addClass(at Row, class uint32, verdicts []uint32) {
	profile := b.profile(at, verdicts)
	h := &b.headers[at]
	if profile == 0 {
		return
	}
	if int(h.pages) < b.fresh {
		b.own()
		h = &b.headers[at]
		from := h.pages
		h.pages = uint32(len(b.index))
		b.index = append(b.index, b.index[from:int(from)+b.columns]...)
	}
	page := &b.index[h.pages+class/pageSize]
	copy(b.page, b.pages.words[*page:*page+pageSize])
	b.page[class%pageSize] = profile
	*page = b.pages.add(b.page) * pageSize
}

// profile returns the number of a row's profile, a new one if need be.
func (b *book) profile(at Row, verdicts []uint32) uint32 {
	r, h := &b.rows[at], &b.headers[at]
	cells := b.cells[h.cells : int(h.cells)+r.cells]
search:
	for from := 0; from < r.cells; from += r.width {
		for i, v := range verdicts {
			if cells[from+i] != Verdict(v) {
				continue search
			}
		}
		return uint32(from)
	}
	if int(h.cells)+r.cells != len(b.cells) {
		b.own()
		h = &b.headers[at]
		h.cells = uint32(len(b.cells))
		b.cells = append(b.cells, cells...)
	}
	for _, v := range verdicts {
		b.cells = append(b.cells, Verdict(v))
	}
	r.cells += r.width
	b.widest = max(b.widest, r.cells)
	return uint32(r.cells - r.width)
}

// remap gives all rows local port classes for new port classes, each of which
// is a part of an old one.
func (b *book) remap(old []uint32) {
	local := make([]uint32, 0, len(b.headers)*len(old))
	b.own()
	for i := range b.headers {
		from := b.headers[i].ports
		b.headers[i].ports = uint32(len(local))
		for _, class := range old {
			local = append(local, b.local[from+class])
		}
	}
	b.local, b.local8, b.classes = local, nil, len(old)
}

// words is how much memory the slabs use, in words.
func (b *book) words() int {
	return len(b.index) + len(b.pages.words) + len(b.local) + len(b.cells)
}

// check reports slabs that offsets of 32 bits can't address.
func (b *book) check() error {
	for _, n := range []int{len(b.index), len(b.pages.words), len(b.local), len(b.cells)} {
		if n > 1<<32-1 {
			return fmt.Errorf("%d rows: %d entries, want less than %d", len(b.rows), n, uint64(1)<<32)
		}
	}
	return nil
}

// publish hands the slabs to a table, and freezes them.
func (b *book) publish(t *Table, p *ports) {
	t.headers, t.pages, t.cells = b.headers, b.index, b.cells
	b.shared, b.fresh = true, len(b.index)
	if b.widest <= 1<<16 {
		b.profile16 = narrow(b.profile16, b.pages.words)
		t.profile16 = b.profile16
	} else {
		t.profile32 = b.pages.words
	}
	if b.classes <= 1<<8 {
		b.local8 = narrow(b.local8, b.local)
		t.port8 = portClasses[uint8]{proto: p.proto, table: p.narrow(), local: b.local8}
	} else {
		t.port32 = portClasses[uint32]{proto: p.proto, table: p.table, local: b.local}
	}
}

// narrow appends to a narrow copy what it lacks.
func narrow[N uint8 | uint16](have []N, words []uint32) []N {
	have = slices.Grow(have, len(words)-len(have))
	for _, w := range words[len(have):] {
		have = append(have, N(w))
	}
	return have
}
