package classify

import "github.com/sluice-net/sluice/dataplane/packet"

// batch is how many queries go through a stage together.
const batch = 64

// Classify answers q[i] in out[i]; out must be at least as long as q.
func (t *Table) Classify(q []Query, out []Verdict) {
	for len(q) > batch {
		t.classify(q[:batch], out[:batch])
		q, out = q[batch:], out[batch:]
	}
	t.classify(q, out[:len(q)])
}

func (t *Table) classify(q []Query, out []Verdict) {
	var class [batch]uint32
	for i := range q {
		class[i%batch] = t.classOf(q[i].Remote)
	}
	for i := range q {
		h := header{}
		if int(q[i].Row) < len(t.headers) {
			h = t.headers[q[i].Row]
		} else {
			h = t.headers[DenyRow]
		}
		p := t.proto[q[i].Proto]
		port := t.portTable[p>>1+uint32(q[i].Port)&-(p&full)]
		profile := t.matrix[h.matrix+class[i%batch]]
		out[i] = t.cells[h.cells+profile*h.width+t.local[h.local+port]]
	}
}

// classOf finds the last stretch that starts at or before the address.
func (t *Table) classOf(a packet.Addr) uint32 {
	low, n := 0, len(t.starts)
	for n > 1 {
		half := n / 2
		if !a.Less(t.starts[low+half]) {
			low += half
		}
		n -= half
	}
	return t.class[low]
}
