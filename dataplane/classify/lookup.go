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
	var memory [2][batch]uint32
	class, cell := memory[0][:len(q)], memory[1][:len(q)]
	if t.class16.root != nil {
		t.class16.classify(q, class)
	} else {
		t.class32.classify(q, class)
	}
	if t.port8.table != nil {
		locate(t, &t.port8, q, class, cell)
	} else {
		locate(t, &t.port32, q, class, cell)
	}
	if t.profile16 != nil {
		judge(t.profile16, t.cells, class, cell, out)
	} else {
		judge(t.profile32, t.cells, class, cell, out)
	}
}

// locate finds where each query's profile number is, in class, and where its
// cell is in the first profile of the row.
func locate[P uint8 | uint32](t *Table, p *portClasses[P], q []Query, class, cell []uint32) {
	headers, pages := t.headers, t.pages
	table, local := p.table, p.local
	class, cell = class[:len(q)], cell[:len(q)]
	for i := range q {
		row := q[i].Row
		if int(row) >= len(headers) {
			row = DenyRow
		}
		h := &headers[row]
		c := class[i]
		class[i] = pages[h.pages+c/pageSize] + c%pageSize
		port := uint32(table[p.proto[q[i].Proto]&(uint32(q[i].Port)|0xffff0000)])
		cell[i] = h.cells + uint32(local[h.ports+port])
	}
}

// judge reads the verdicts.
func judge[P uint16 | uint32](profiles []P, cells []Verdict, class, cell []uint32, out []Verdict) {
	cell, out = cell[:len(class)], out[:len(class)]
	for i := range class {
		out[i] = cells[cell[i]+uint32(profiles[class[i]])]
	}
}
