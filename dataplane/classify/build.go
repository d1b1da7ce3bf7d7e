package classify

import (
	"fmt"
	"math/rand/v2"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// Build compiles a Set. It refuses a set that contradicts itself, or that no
// table can hold.
func Build(set *rule.Set) (*Table, error) {
	programs, err := usedPrograms(set)
	if err != nil {
		return nil, err
	}
	used, err := usedPeers(set, programs)
	if err != nil {
		return nil, err
	}
	classes, err := newClasses(set, &used)
	if err != nil {
		return nil, err
	}
	var sp space
	if sp.spans4, sp.spans6, err = spans(set, &used, classes); err != nil {
		return nil, err
	}
	if sp.points4, sp.points6, err = points(set); err != nil {
		return nil, err
	}
	sp.settle(classes)

	t := &Table{set: set}
	capacity := uint32(classes.sets.len())
	seed := [2]uint64{rand.Uint64() | 1, rand.Uint64() | 1}
	if capacity <= 1<<16 {
		t.class16 = layOut[uint16](&sp, capacity, seed).publish()
	} else {
		t.class32 = layOut[uint32](&sp, capacity, seed).publish()
	}
	if err := t.buildRows(set, programs, &used, classes); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Table) buildRows(set *rule.Set, programs []rule.ProgramID, used *peers, c *classes) error {
	ports := newPorts()
	for _, id := range programs {
		for _, tier := range set.Programs[id].Tiers {
			for i := range tier.Rules {
				ports.add(&tier.Rules[i])
			}
		}
	}
	ports.build()
	w := &rower{peers: used, ports: ports, classes: c.sets.len()}
	w.list, w.starts = c.members(used.count)
	rows := []row{w.deny()}
	rowOf := make([]Row, len(set.Programs))
	for _, id := range programs {
		rowOf[id] = Row(len(rows))
		rows = append(rows, w.compile(&set.Programs[id]))
	}
	if n := len(set.Endpoints); n > 0 {
		t.rows = make([]endpointRows, set.Endpoints[n-1].ID+1)
	}
	for _, e := range set.Endpoints {
		t.rows[e.ID] = endpointRows{rowOf[e.Ingress], rowOf[e.Egress]}
	}
	return t.pack(rows, ports)
}

// pack lays rows out behind one another, as narrow as they allow.
func (t *Table) pack(rows []row, ports *ports) error {
	var pages interner
	words := make([]uint32, pageSize)
	most, local, cells := 0, uint64(0), uint64(0)
	for _, r := range rows {
		t.headers = append(t.headers, header{pages: uint32(len(t.pages)), ports: uint32(local), cells: uint32(cells)})
		for from := 0; from < len(r.profile); from += pageSize {
			clear(words)
			for i, p := range r.profile[from:min(from+pageSize, len(r.profile))] {
				words[i] = p * uint32(r.width)
			}
			t.pages = append(t.pages, pages.add(words)*pageSize)
		}
		most = max(most, len(r.cells))
		local += uint64(len(r.local))
		cells += uint64(len(r.cells))
	}
	if n := max(uint64(len(t.pages)), uint64(len(pages.words)), local, cells); n > 1<<32 {
		return fmt.Errorf("%d rows: %d entries, want at most %d", len(rows), n, uint64(1)<<32)
	}
	t.cells = make([]Verdict, 0, cells)
	for _, r := range rows {
		t.cells = append(t.cells, r.cells...)
	}
	if ports.classes <= 1<<8 {
		t.port8 = newPortClasses[uint8](ports, rows)
	} else {
		t.port32 = newPortClasses[uint32](ports, rows)
	}
	if most <= 1<<16 {
		t.profile16 = convert[uint16](pages.words)
	} else {
		t.profile32 = pages.words
	}
	return nil
}

func convert[P uint8 | uint16 | uint32](words []uint32) []P {
	out := make([]P, len(words))
	for i, w := range words {
		out[i] = P(w)
	}
	return out
}
