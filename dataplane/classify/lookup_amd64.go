//go:build !race && !purego

package classify

// tables is what lookup_amd64.s reads of a Table: the first entries of its
// narrow parts.
type tables struct {
	nodes, root *uint32
	leaf        *uint16
	portNodes   *uint32
	portLeaf    *uint8
	records     *byte
	stride      uint64
	pages       *byte // those of the first record
	rows        uint64
	profile8    *uint8 // or
	profile16   *uint16
	cells       *Verdict

	parts        **part
	lastPart     uint64 // a mask
	high         uint64 // bits of an address's lower half that its group has in common
	seed0, seed1 uint64
	groups       *uint16
	nodes6       *uint32
	stem         stem
	upper, lower uint64 // levels that the two halves of an address go through
}

// addrLo is where a packet.Addr has its lower half.
const addrLo = 8

// prepare fills t.fast, if all parts of the table are narrow.
func (t *Table) prepare() {
	if t.class16.nodes == nil || t.records.wide || t.profile32 != nil {
		return
	}
	f, r := &t.fast, &t.records
	*f = tables{
		nodes: &t.class16.nodes[0], root: &t.class16.nodes[t.class16.root], leaf: &t.class16.leaf[0],
		portNodes: &t.portNodes[0], portLeaf: &t.port8[0],
		records: &r.bytes[0], stride: uint64(r.stride), pages: &r.bytes[r.layout.pages],
		rows: uint64(len(r.bytes) / r.stride), cells: &t.cells[0],
	}
	c := &t.class16
	f.parts, f.lastPart, f.high = &c.parts[0], uint64(len(c.parts)-1), ^c.low()
	f.seed0, f.seed1, f.groups = c.seed[0], c.seed[1], &c.groups[0]
	f.nodes6, f.stem, f.upper, f.lower = &c.nodes6[0], c.stem, uint64(c.upper()), uint64(c.lower())
	if t.profile8 != nil {
		f.profile8 = &t.profile8[0]
	} else {
		f.profile16 = &t.profile16[0]
	}
}

// classifyFast answers at most batch queries, and reports whether it did. It
// checks what callers choose, the row; that all offsets lead into the table is
// the builder's promise.
func (t *Table) classifyFast(q []Query, out []Verdict) bool {
	if t.fast.nodes == nil {
		return false
	}
	if len(q) == 0 {
		return true
	}
	out = out[:len(q)]
	f, c := &t.fast, &t.class16
	four := !c.sparse && q[0].Remote.Is4()
	if four && classify4(f, &q[0], &out[0], len(q)) == 0 {
		return true
	}
	var class [batch]uint32
	if four || classes6(f, &q[0], len(q), &class[0]) != 0 && !c.sparse {
		c.classify(q, class[:len(q)])
	}
	classifyBy(f, &q[0], &out[0], len(q), &class[0])
	return true
}

// classes6 finds the classes of the remote addresses of 1 to batch queries, as
// if all were for IPv6 addresses. Where it returns 0 none is for an IPv4 one.
//
//go:noescape
func classes6(t *tables, q *Query, n int, class *uint32) (others uint64)

// classify4 answers 1 to batch queries as if all were for IPv4 addresses, and
// returns 0 if they are.
//
//go:noescape
func classify4(t *tables, q *Query, out *Verdict, n int) (others uint64)

// classifyBy answers 1 to batch queries whose remote addresses are of the
// given classes.
//
//go:noescape
func classifyBy(t *tables, q *Query, out *Verdict, n int, class *uint32)
