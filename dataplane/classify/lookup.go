package classify

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
	var class, cell [batch]uint32
	if t.class16.root != nil {
		t.class16.classify(q, &class)
	} else {
		t.class32.classify(q, &class)
	}
	if t.port8.table != nil {
		t.port8.classify(q, t.headers, &cell)
	} else {
		t.port32.classify(q, t.headers, &cell)
	}
	if t.profile8 != nil {
		judge(q, t.headers, t.profile8, t.cells, &class, &cell, out)
	} else {
		judge(q, t.headers, t.profile32, t.cells, &class, &cell, out)
	}
}

// judge is the last stage: row, class and port class → verdict.
func judge[P uint8 | uint32](q []Query, headers []header, profiles []P, cells []Verdict, class, cell *[batch]uint32, out []Verdict) {
	out = out[:len(q)]
	for i := range q {
		h := &headers[known(q[i].Row, len(headers))]
		profile := uint32(profiles[h.profiles+class[i%batch]])
		out[i] = cells[h.cells+profile*h.width+cell[i%batch]]
	}
}

// known returns the row itself if there are that many rows, else DenyRow.
func known(r Row, rows int) Row {
	if int(r) >= rows {
		r = DenyRow
	}
	return r
}
