package dataplane

import (
	"testing"

	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// listenTo puts one frame through, with pod a learning names or not, and
// returns what was handed on and what became of the frame.
func (w *testWorker) listenTo(s segment, learns bool) (heard []event.Lookup, p *pkt) {
	w.t.Helper()
	w.snap.local[slotA].learns, w.snap.learning = learns, learns
	p = w.judgeOne(s.frame(w.t))
	w.listen(w.snap)
	w.listener.ring.Read(func(l *event.Lookup) {
		x := *l
		x.Data = append([]byte(nil), l.Data...)
		heard = append(heard, x)
	})
	return heard, p
}

// Of a pod that learns, questions are handed on and go their way, answers are
// handed on and wait; nothing of other pods, ports and directions is.
func TestListen(t *testing.T) {
	question, answer := aToB(53), bToA(53)
	question.udp, answer.udp = true, true
	w := newTestWorker(t)
	if heard, p := w.listenTo(question, false); len(heard) > 0 || p.verb != verbShortcut {
		t.Errorf("of a pod that does not learn: %d handed on, verb %d", len(heard), p.verb)
	}
	if heard, p := w.listenTo(answer, false); len(heard) > 0 || p.verb != verbShortcut {
		t.Errorf("answer to a pod that does not learn: %d handed on, verb %d", len(heard), p.verb)
	}

	w = newTestWorker(t)
	heard, p := w.listenTo(question, true)
	if len(heard) != 1 || heard[0].Answer || heard[0].Held.Number != 0 || heard[0].Pod != slotA || string(heard[0].Data) != "payload" || !heard[0].Whole {
		t.Errorf("question: %+v", heard)
	}
	if p.verb != verbShortcut {
		t.Errorf("question: verb %d", p.verb)
	}
	if e := w.flows.At(w.flows.Find(&p.key)); e.Flags&lookup == 0 {
		t.Error("the conversation may enter the kernel's cache")
	}
	heard, p = w.listenTo(answer, true)
	if len(heard) != 1 || !heard[0].Answer || heard[0].Held.Number != 1 || heard[0].Pod != slotA || string(heard[0].Data) != "payload" {
		t.Errorf("answer: %+v", heard)
	}
	if p.verb != verbHold || w.listener.n != 1 {
		t.Errorf("answer: verb %d, %d held", p.verb, w.listener.n)
	}

	// A pod that learns may be a resolver itself, and have other conversations.
	web := aToB(80)
	web.syn = true
	if heard, p := w.listenTo(web, true); len(heard) > 0 || p.verb != verbShortcut {
		t.Errorf("other port: %d handed on, verb %d", len(heard), p.verb)
	}
	asked := bToA(40000)
	asked.udp, asked.dport = true, 53
	if heard, p := w.listenTo(asked, true); len(heard) > 0 || p.verb != verbShortcut {
		t.Errorf("question to the pod: %d handed on, verb %d", len(heard), p.verb)
	}
}

// Conversations with resolvers stay out of the kernel's caches, however many there are
// and whatever rules change: there no one would listen.
func TestLookupsAreNotCached(t *testing.T) {
	w := newCachingWorker(t, 64)
	question := aToB(53)
	question.udp = true
	w.listenTo(question, false)
	if _, p := w.listenTo(question, false); !w.holds(p.key) {
		t.Error("of a pod that does not learn: not in the cache")
	}
	w.publish(testSet(2, web...))
	if _, p := w.listenTo(question, true); w.holds(p.key) {
		t.Error("of a pod that learns since: in the cache")
	}
	w = newCachingWorker(t, 64)
	for generation := range uint64(2) {
		w.publish(testSet(generation+1, web...))
		for question.sport = 1; question.sport <= 3; question.sport++ {
			_, p := w.listenTo(question, true)
			if p.verb != verbShortcut || w.holds(p.key) {
				t.Errorf("generation %d, port %d: verb %d, in the cache %t", generation+1, question.sport, p.verb, w.holds(p.key))
			}
			if w.pairs.known(w.worker, &p.key, p.side) {
				t.Errorf("generation %d, port %d: divert admits others", generation+1, question.sport)
			}
		}
	}
}

// Of TCP, openings and payloads are handed on, bare acknowledgements are not.
func TestListenTCP(t *testing.T) {
	w := newTestWorker(t)
	s := segment{hook: event.FromPod, slot: slotA, src: addrA, dst: out, sport: 40000, dport: 53, syn: true}
	if heard, _ := w.listenTo(s, true); len(heard) != 1 || heard[0].TCPFlags&2 == 0 {
		t.Errorf("opening: %+v", heard)
	}
	back := segment{hook: event.ToPod, slot: slotA, src: out, dst: addrA, sport: 53, dport: 40000, ack: true}
	heard, p := w.listenTo(back, true)
	if len(heard) != 1 || heard[0].Held.Number == 0 || string(heard[0].Data) != "payload" || p.verb != verbHold {
		t.Errorf("answer: %+v, verb %d", heard, p.verb)
	}
}

// What finds no room, neither as a frame nor as a copy, is not held.
func TestHoldBudget(t *testing.T) {
	w := newTestWorker(t)
	w.snap.local[slotA].learns, w.snap.learning = true, true
	question, answer := aToB(53), bToA(53)
	question.udp, answer.udp = true, true
	w.judgeOne(question.frame(t))
	w.listen(w.snap)
	for i := range maxHeld + 2 {
		p := w.judgeOne(answer.frame(t))
		w.listen(w.snap)
		if held := p.verb == verbHold; held != (i < maxHeld) {
			t.Errorf("answer %d: held %v", i, held)
		}
	}
	w.counts.Publish()
	if n := w.counts.Snapshot().Counts[stat.LookupsUnheld]; n != 2 {
		t.Errorf("%d counted as not held, want 2", n)
	}
	w.listener.n = 0
	for !w.listener.ring.Full(slotA) {
		w.judgeOne(question.frame(t))
		w.listen(w.snap)
	}
	if p := w.judgeOne(answer.frame(t)); true {
		w.listen(w.snap)
		if p.verb == verbHold {
			t.Error("held though nobody will hear of it")
		}
	}
	n := testing.AllocsPerRun(100, func() {
		w.listener.ring.Read(func(*event.Lookup) {})
		w.listener.n = 0
		w.listen(w.snap)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A pod that may ask nobody learns nothing in conversations that others begin, from
// a resolver's port, and it answers.
func TestAskedByAResolver(t *testing.T) {
	set := testSet(1, web...)
	set.Programs = append(set.Programs, rule.Program{Tiers: []rule.Tier{{Name: "networkpolicy", Default: rule.Deny, DefaultCause: 2}}})
	set.Endpoints[0].Egress = 2
	in := segment{hook: event.ToPod, slot: slotA, src: out, dst: addrA, sport: 53, dport: 40000}
	back := segment{hook: event.FromPod, slot: slotA, src: addrA, dst: out, sport: 40000, dport: 53}
	with := func(s segment, change func(*segment)) segment { change(&s); return s }
	for name, steps := range map[string][]segment{
		"UDP": {
			with(in, func(s *segment) { s.udp = true }), with(back, func(s *segment) { s.udp = true }), with(in, func(s *segment) { s.udp = true }),
		},
		"TCP, closed": {
			with(in, func(s *segment) { s.syn = true }), with(back, func(s *segment) { s.syn, s.ack = true, true }), with(in, func(s *segment) { s.rst = true }),
			with(back, func(s *segment) { s.ack = true }), with(in, func(s *segment) { s.ack = true }),
		},
	} {
		w := newTestWorker(t)
		w.publish(set)
		for i, s := range steps {
			heard, p := w.listenTo(s, true)
			if p.verb == verbDrop || len(heard) > 0 {
				t.Errorf("%s, packet %d: verb %d (%v), %d heard", name, i, p.verb, p.reason, len(heard))
			}
		}
	}
}
