package classify

import "encoding/binary"

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
	if !t.classifyFast(q, out) {
		t.classifyPortably(q, out)
	}
}

// classifyPortably answers at most batch queries, on any machine and of tables
// of any size.
func (t *Table) classifyPortably(q []Query, out []Verdict) {
	var memory [2][batch]uint32
	class, cell := memory[0][:len(q)], memory[1][:len(q)]
	if t.class16.nodes != nil {
		t.class16.classify(q, class)
	} else {
		t.class32.classify(q, class)
	}
	switch {
	case t.records.wide && t.port32 != nil:
		locateWide(t, t.port32, q, class, cell)
	case t.records.wide:
		locateWide(t, t.port8, q, class, cell)
	default:
		t.locate(q, class, cell)
	}
	switch {
	case t.profile8 != nil:
		judge(t.profile8, t.cells, class, cell, out)
	case t.profile16 != nil:
		judge(t.profile16, t.cells, class, cell, out)
	default:
		judge(t.profile32, t.cells, class, cell, out)
	}
}

// locate finds where each query's profile number is, in class, and where its
// cell is in the first profile of the row.
func (t *Table) locate(q []Query, class, cell []uint32) {
	records, stride, pages := t.records.bytes, t.records.stride, t.records.pages
	rows := len(records) / stride
	nodes, leaf := t.portNodes[:1<<16], t.port8
	class, cell = class[:len(q)], cell[:len(q)]
	for i := range q {
		row := int(q[i].Row)
		if row >= rows {
			row = int(DenyRow)
		}
		row *= stride
		c := class[i]
		at := row + pages + int(c/pageSize)*2
		class[i] = uint32(binary.LittleEndian.Uint16(records[at:at+2]))*pageSize + c%pageSize
		port := uint32(q[i].Port)
		at = row + localAt + int(leaf[nodes[uint32(q[i].Proto)<<8+port>>8]+port&0xff])
		cell[i] = binary.LittleEndian.Uint32(records[row:row+4]) + uint32(records[at])
	}
}

// locateWide is locate for wide records.
func locateWide[P uint8 | uint32](t *Table, leaf []P, q []Query, class, cell []uint32) {
	r := &t.records
	for i := range q {
		row := int(q[i].Row)
		if row >= len(r.bytes)/r.stride {
			row = int(DenyRow)
		}
		record := r.bytes[row*r.stride:][:r.stride]
		c := class[i]
		class[i] = binary.LittleEndian.Uint32(record[r.pages+int(c/pageSize)*4:])*pageSize + c%pageSize
		port := uint32(q[i].Port)
		at := leaf[t.portNodes[uint32(q[i].Proto)<<8+port>>8]+port&0xff]
		cell[i] = binary.LittleEndian.Uint32(record) + binary.LittleEndian.Uint32(record[localAt+4*int(at):])
	}
}

// judge reads the verdicts.
func judge[P uint8 | uint16 | uint32](profiles []P, cells []Verdict, class, cell []uint32, out []Verdict) {
	cell, out = cell[:len(class)], out[:len(class)]
	for i := range class {
		out[i] = cells[cell[i]+uint32(profiles[class[i]])*unit]
	}
}
