package classify

import (
	"slices"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// row is one compiled program: a profile for each class, and for each profile
// and local port class a verdict.
type row struct {
	profile []uint32 // by class
	local   []uint32 // by port class → local port class
	width   int      // local port classes
	cells   []Verdict
}

// rower compiles programs, one after the other, reusing its memory.
type rower struct {
	peers   *peers
	ports   *ports
	classes int
	list    []uint32 // members of each dense peer …
	starts  []uint32 // … and where they begin

	rules   []rowRule
	byClass refiner
	byPort  refiner
	vectors interner
	matched []bool
	vector  []uint32
}

type rowRule struct {
	rule  *rule.Rule
	tier  int
	ports uint32 // number of the set
	mask  []bool // by local port class
	round uint32 // of byClass, 0 for any peer
}

// compile turns one program into a row.
func (w *rower) compile(p *rule.Program) row {
	w.flatten(p)
	out := row{local: make([]uint32, w.ports.classes)}
	out.width = w.splitPorts(out.local)
	w.splitClasses()
	w.vectors.reset()
	w.vector = slices.Grow(w.vector[:0], out.width)[:out.width]
	profile := make([]uint32, len(w.byClass.parent))
	done := make([]bool, len(profile))
	out.profile = make([]uint32, w.classes)
	for i, c := range w.byClass.class {
		if !done[c] {
			done[c] = true
			w.paint(p, c)
			profile[c] = w.vectors.add(w.vector)
		}
		out.profile[i] = profile[c]
	}
	out.cells = make([]Verdict, len(w.vectors.words))
	for i, v := range w.vectors.words {
		out.cells[i] = Verdict(v)
	}
	return out
}

// flatten lists the rules that can match anything.
func (w *rower) flatten(p *rule.Program) {
	w.rules = w.rules[:0]
	for t := range p.Tiers {
		for i := range p.Tiers[t].Rules {
			r := &p.Tiers[t].Rules[i]
			if set, ok := w.ports.add(r); ok && (r.AnyPeer || len(r.Peers) > 0) {
				w.rules = append(w.rules, rowRule{rule: r, tier: t, ports: set})
			}
		}
	}
}

// splitPorts finds the port classes that this row tells apart.
func (w *rower) splitPorts(local []uint32) (width int) {
	w.byPort.reset(w.ports.classes)
	for i := range w.rules {
		w.byPort.next()
		for _, c := range w.ports.member[w.rules[i].ports] {
			w.byPort.put(c)
		}
	}
	number := make([]uint32, len(w.byPort.parent))
	for i, c := range w.byPort.class {
		if number[c] == 0 {
			width++
			number[c] = uint32(width)
		}
		local[i] = number[c] - 1
	}
	for i := range w.rules {
		w.rules[i].mask = make([]bool, width)
		for _, c := range w.ports.member[w.rules[i].ports] {
			w.rules[i].mask[local[c]] = true
		}
	}
	return width
}

// splitClasses finds the classes that this row tells apart.
func (w *rower) splitClasses() {
	w.byClass.reset(w.classes)
	for i := range w.rules {
		r := &w.rules[i]
		if r.rule.AnyPeer {
			continue
		}
		r.round = w.byClass.next()
		for _, id := range r.rule.Peers {
			p := w.peers.dense[id]
			for _, class := range w.list[w.starts[p]:w.starts[p+1]] {
				w.byClass.put(class)
			}
		}
	}
}

// paint finds the verdict of one class of the refiner for every local port
// class: each rule paints the ports that no rule before it has decided.
func (w *rower) paint(p *rule.Program, class uint32) {
	w.matched = slices.Grow(w.matched[:0], len(w.rules)+1)[:len(w.rules)+1]
	clear(w.matched)
	for c := class; c != 0; c = w.byClass.parent[c] {
		w.matched[w.byClass.born[c]] = true
	}
	for port := range w.vector {
		w.vector[port] = uint32(w.judge(p, port))
	}
}

func (w *rower) judge(p *rule.Program, port int) Verdict {
	log := Verdict(0)
	rules := w.rules
	for t := range p.Tiers {
		action, audit, cause := p.Tiers[t].Default, p.Tiers[t].DefaultAudit, p.Tiers[t].DefaultCause
		found := false
		for ; len(rules) > 0 && rules[0].tier == t; rules = rules[1:] {
			r := &rules[0]
			if found || !r.mask[port] || !r.rule.AnyPeer && !w.matched[r.round] {
				continue
			}
			found = true
			action, audit, cause = r.rule.Action, r.rule.Audit, r.rule.Cause
			if r.rule.Log {
				log = logBit
			}
		}
		switch {
		case action == rule.Allow:
			return newVerdict(cause) | allowBit | log
		case action == rule.Deny && audit:
			return newVerdict(cause) | allowBit | auditBit | log
		case action == rule.Deny:
			return newVerdict(cause) | log
		}
	}
	return newVerdict(rule.NoCause) | allowBit | log
}

// begin prepares to judge classes for a row one by one.
func (w *rower) begin(p *rule.Program, local []uint32, width int) {
	w.flatten(p)
	for i := range w.rules {
		r := &w.rules[i]
		r.round = uint32(i + 1)
		r.mask = make([]bool, width)
		for _, c := range w.ports.member[r.ports] {
			r.mask[local[c]] = true
		}
	}
	w.vector = slices.Grow(w.vector[:0], width)[:width]
}

// judgeSet returns the verdicts, by local port class, of addresses that match
// a set of dense peers.
func (w *rower) judgeSet(p *rule.Program, set []uint32) []uint32 {
	w.matched = slices.Grow(w.matched[:0], len(w.rules)+1)[:len(w.rules)+1]
	for i := range w.rules {
		w.matched[i+1] = slices.ContainsFunc(w.rules[i].rule.Peers, func(id rule.PeerID) bool {
			_, found := slices.BinarySearch(set, w.peers.dense[id])
			return found
		})
	}
	for port := range w.vector {
		w.vector[port] = uint32(w.judge(p, port))
	}
	return w.vector
}
