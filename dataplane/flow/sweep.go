package flow

// Sweep looks at the next budget entries in turn and writes the Refs of those
// whose deadline has passed to out, until out is full; it returns how many.
// The caller removes each, or sets its LastSeenNs from the kernel's counters:
// an offloaded flow's packets don't pass here. A call looks at no entry twice.
func (t *Table) Sweep(nowNs int64, budget int, out []Ref) int {
	n := 0
	for range min(budget, int(t.used)) {
		if n == len(out) {
			break
		}
		if t.cursor >= t.used {
			t.cursor = 0
		}
		e := &t.entries[t.cursor]
		if e.State != Free && t.Deadline(e) <= nowNs {
			out[n] = Ref(t.cursor)
			n++
		}
		t.cursor++
	}
	return n
}

// Scan calls visit with the entries in use among the next budget ones from
// cursor, which it moves on. It reports whether there are more.
func (t *Table) Scan(cursor *int, budget int, visit func(*Entry)) bool {
	end := min(*cursor+budget, int(t.used))
	for ; *cursor < end; *cursor++ {
		if e := &t.entries[*cursor]; e.State != Free {
			visit(e)
		}
	}
	return *cursor < int(t.used)
}
