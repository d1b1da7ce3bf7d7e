package classify

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// ClassifyPortably is Classify without assembly.
func (t *Table) ClassifyPortably(q []Query, out []Verdict) {
	for len(q) > 0 {
		n := min(len(q), batch)
		t.classifyPortably(q[:n], out[:n])
		q, out = q[n:], out[n:]
	}
}

// CheckOffsets reports offsets that lead out of the table, which lookups in
// assembly would follow.
func (t *Table) CheckOffsets() error {
	var classes, portClasses uint32
	var err error
	if a := &t.class16; a.nodes != nil {
		classes, err = checkTrie(a.nodes, a.leaf, a.root)
		for _, c := range a.groups {
			classes = max(classes, uint32(c))
		}
		for _, e := range a.nodes6 {
			if e&full != 0 && int(e>>1)+blockSize > len(a.nodes6) {
				return fmt.Errorf("nodes6: block %d of %d", e>>1, len(a.nodes6))
			} else if e&full == 0 {
				classes = max(classes, e>>1)
			}
		}
		for _, p := range a.parts {
			for _, s := range p {
				if int(s.first)+1<<a.group > len(a.groups) {
					return fmt.Errorf("groups: %d of %d", s.first, len(a.groups))
				}
			}
		}
	}
	if err == nil && t.port8 != nil {
		for _, at := range t.portNodes {
			if int(at)+blockSize > len(t.port8) {
				return fmt.Errorf("port8: block %d of %d", at, len(t.port8))
			}
		}
		portClasses = uint32(slices.Max(t.port8))
	}
	if err != nil || t.records.wide || t.profile32 != nil {
		return err
	}
	return t.checkRecords(int(classes), int(portClasses))
}

// checkTrie returns the largest value that a trie leads to.
func checkTrie(nodes []uint32, leaf []uint16, root uint32) (largest uint32, err error) {
	here := map[uint32]bool{root: true}
	for range leafLevel {
		below := map[uint32]bool{}
		for at := range here {
			if int(at)+blockSize > len(nodes) {
				return 0, fmt.Errorf("nodes: block %d of %d", at, len(nodes))
			}
			for _, e := range nodes[at : at+blockSize] {
				below[e] = true
			}
		}
		here = below
	}
	for at := range here {
		if int(at)+blockSize > len(leaf) {
			return 0, fmt.Errorf("leaf: block %d of %d", at, len(leaf))
		}
		for _, c := range leaf[at : at+blockSize] {
			largest = max(largest, uint32(c))
		}
	}
	return largest, nil
}

// checkRecords follows what all classes lead to.
func (t *Table) checkRecords(classes, portClasses int) error {
	r := &t.records
	for row := range len(r.bytes) / r.stride {
		record := r.bytes[row*r.stride:][:r.stride]
		local := 0
		for _, l := range record[localAt:][:portClasses+1] {
			local = max(local, int(l))
		}
		for i := range classes/pageSize + 1 {
			page := int(binary.LittleEndian.Uint16(record[r.layout.pages+2*i:]))
			for k := range pageSize {
				profile := 0
				if t.profile8 != nil {
					profile = int(t.profile8[page*pageSize+k])
				} else {
					profile = int(t.profile16[page*pageSize+k])
				}
				if cell := int(binary.LittleEndian.Uint32(record)) + profile*unit + local; cell >= len(t.cells) {
					return fmt.Errorf("row %d: cell %d of %d", row, cell, len(t.cells))
				}
			}
		}
	}
	return nil
}

// Layout is the same until all addresses are laid out anew.
func (u *Updater) Layout() any { return [2]any{u.builder.paint16, u.builder.paint32} }

// PortClasses is how many classes of ports the latest table tells apart.
func (u *Updater) PortClasses() int { return u.builder.ports.classes }

// Users is how many rows are listed as users of all peers.
func (u *Updater) Users() (n int) {
	for _, list := range u.builder.book.users {
		n += len(list)
	}
	return n
}
