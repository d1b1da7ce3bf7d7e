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

	rules   []rowRule       // of Tiers, then of Staged
	groups  [][]rule.PeerID // lists of peers that rules name, by round of byClass, less one
	byClass refiner
	byPort  refiner
	vectors interner
	matched []bool
	vector  []uint32
}

type rowRule struct {
	rule     *rule.Rule
	tier     int
	ports    uint32   // number of the set
	notPorts uint32   // number of the set that is left out, or noPorts
	mask     []bool   // by local port class
	in       []uint32 // rounds of byClass that have to have matched
	notIn    uint32   // round that must not have, or 0
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
	w.rules, w.groups = w.rules[:0], w.groups[:0]
	first := 0
	for _, tiers := range [2][]rule.Tier{p.Tiers, p.Staged} {
		for t := range tiers {
			for i := range tiers[t].Rules {
				w.add(&tiers[t].Rules[i], first+t)
			}
		}
		first += len(tiers)
	}
}

func (w *rower) add(r *rule.Rule, tier int) {
	set, not, ok := w.ports.add(r)
	if !ok || !r.AnyPeer && len(r.Peers) == 0 {
		return
	}
	x := rowRule{rule: r, tier: tier, ports: set, notPorts: not}
	if !r.AnyPeer {
		x.in = append(x.in, w.group(r.Peers))
	}
	for _, list := range r.And {
		x.in = append(x.in, w.group(list))
	}
	if len(r.Not) > 0 {
		x.notIn = w.group(r.Not)
	}
	w.rules = append(w.rules, x)
}

func (w *rower) group(list []rule.PeerID) (round uint32) {
	w.groups = append(w.groups, list)
	return uint32(len(w.groups))
}

// splitPorts finds the port classes that this row tells apart.
func (w *rower) splitPorts(local []uint32) (width int) {
	w.byPort.reset(w.ports.classes)
	for i := range w.rules {
		for _, set := range [2]uint32{w.rules[i].ports, w.rules[i].notPorts} {
			w.byPort.next()
			for _, c := range w.ports.member[set] {
				w.byPort.put(c)
			}
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
	w.maskPorts(local, width)
	return width
}

func (w *rower) maskPorts(local []uint32, width int) {
	for i := range w.rules {
		r := &w.rules[i]
		r.mask = make([]bool, width)
		for _, c := range w.ports.member[r.ports] {
			r.mask[local[c]] = true
		}
		for _, c := range w.ports.member[r.notPorts] {
			r.mask[local[c]] = false
		}
	}
}

// splitClasses finds the classes that this row tells apart.
func (w *rower) splitClasses() {
	w.byClass.reset(w.classes)
	for _, list := range w.groups {
		w.byClass.next()
		for _, id := range list {
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
	w.matched = slices.Grow(w.matched[:0], len(w.groups)+1)[:len(w.groups)+1]
	clear(w.matched)
	for c := class; c != 0; c = w.byClass.parent[c] {
		w.matched[w.byClass.born[c]] = true
	}
	for port := range w.vector {
		w.vector[port] = uint32(w.judge(p, port))
	}
}

// matches reports whether a rule matches the class that matched stands for.
func (r *rowRule) matches(matched []bool, port int) bool {
	if !r.mask[port] || matched[r.notIn] {
		return false
	}
	for _, round := range r.in {
		if !matched[round] {
			return false
		}
	}
	return true
}

// judge walks the tiers, and those of what is staged if they could say more.
func (w *rower) judge(p *rule.Program, port int) Verdict {
	v, rules := w.walk(p.Tiers, 0, w.rules, port)
	if p.Staged == nil || v&(allowBit|auditBit) != allowBit {
		return v
	}
	staged, _ := w.walk(p.Staged, len(p.Tiers), rules, port)
	if staged&allowBit != 0 {
		return v
	}
	return staged&^logBit | allowBit | auditBit | v&logBit
}

// walk judges tiers whose rules come first in rules, numbered from first on,
// and returns the rules of other tiers.
func (w *rower) walk(tiers []rule.Tier, first int, rules []rowRule, port int) (Verdict, []rowRule) {
	n := 0
	for n < len(rules) && rules[n].tier < first+len(tiers) {
		n++
	}
	rest := rules[n:]
	rules = rules[:n]
	log := Verdict(0)
	for t := range tiers {
		action, audit, cause := tiers[t].Default, tiers[t].DefaultAudit, tiers[t].DefaultCause
		found := false
		for ; len(rules) > 0 && rules[0].tier == first+t; rules = rules[1:] {
			r := &rules[0]
			if found || !r.matches(w.matched, port) {
				continue
			}
			if r.rule.Log {
				log = logBit
			}
			if r.rule.Action != rule.Next {
				found = true
				action, audit, cause = r.rule.Action, r.rule.Audit, r.rule.Cause
			}
		}
		switch {
		case action == rule.Allow:
			return newVerdict(cause) | allowBit | log, rest
		case action == rule.Deny && audit:
			return newVerdict(cause) | allowBit | auditBit | log, rest
		case action == rule.Deny:
			return newVerdict(cause) | log, rest
		}
	}
	return newVerdict(rule.NoCause) | allowBit | log, rest
}

// begin prepares to judge classes for a row one by one.
func (w *rower) begin(p *rule.Program, local []uint32, width int) {
	w.flatten(p)
	w.maskPorts(local, width)
	w.vector = slices.Grow(w.vector[:0], width)[:width]
}

// judgeSet returns the verdicts, by local port class, of addresses that match
// a set of dense peers.
func (w *rower) judgeSet(p *rule.Program, set []uint32) []uint32 {
	w.matched = slices.Grow(w.matched[:0], len(w.groups)+1)[:len(w.groups)+1]
	w.matched[0] = false
	for i, list := range w.groups {
		w.matched[i+1] = slices.ContainsFunc(list, func(id rule.PeerID) bool {
			_, found := slices.BinarySearch(set, w.peers.dense[id])
			return found
		})
	}
	for port := range w.vector {
		w.vector[port] = uint32(w.judge(p, port))
	}
	return w.vector
}
