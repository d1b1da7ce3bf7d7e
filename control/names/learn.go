package names

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// answerWithin is how long a question waits for its answer.
const answerWithin = 30 * time.Second

// questions are those that wait for an answer. A place in the queue, oldest
// first, is stale once its question was answered, or put again behind it.
type questions struct {
	waiting map[asked]latest
	queue   []place
	number  uint64 // last given out
	most    int
}

type latest struct {
	number uint64
	at     time.Time
}

type place struct {
	asked
	number uint64
}

// asked is a question, and where it was put: the flow has the addresses and
// ports of both ends.
type asked struct {
	flow packet.Key
	question
}

func newQuestions(most int) questions { return questions{waiting: map[asked]latest{}, most: most} }

// ask notes a question of the pod.
func (p *pupil) ask(names []policy.Name, x *event.Lookup, m []byte, now time.Time) {
	q, ok := readQuestion(m)
	if !ok || !anyMatches(names, normal(q.name)) {
		return
	}
	p.questions.add(asked{x.Key, q}, now)
}

func (q *questions) add(k asked, now time.Time) {
	q.number++
	q.waiting[k] = latest{q.number, now}
	q.queue = append(q.queue, place{k, q.number})
	for len(q.waiting) > q.most {
		if first := q.queue[0]; !q.stale(first) {
			delete(q.waiting, first.asked)
		}
		q.queue = q.queue[1:]
	}
	if len(q.queue) > 2*q.most {
		q.queue = slices.DeleteFunc(q.queue, q.stale)
	}
}

func (q *questions) stale(p place) bool { return q.waiting[p.asked].number != p.number }

// take removes a question and reports whether it was waiting: each is answered
// once.
func (q *questions) take(k asked, now time.Time) bool {
	x, ok := q.waiting[k]
	delete(q.waiting, k)
	return ok && now.Sub(x.at) <= answerWithin
}

func anyMatches(names []policy.Name, name string) bool {
	return printable(name) && slices.ContainsFunc(names, func(n policy.Name) bool { return n.Matches(name) })
}

// record is what a pod has taught.
type record struct {
	entries  map[taught]*Entry
	names    map[string]int // addresses by name
	orphaned time.Time      // when the pod was gone
}

type taught struct {
	name string
	addr netip.Addr
}

// answer takes an answer in. It returns the turn by which rules know of what it
// tells; 0 if they do already.
func (l *Learner) answer(p *pupil, names []policy.Name, x *event.Lookup, m []byte, whole bool) (turn uint64) {
	now := l.now()
	a, ok := readAnswer(m, whole)
	if !ok || !p.questions.take(asked{x.Key, a.question}, now) {
		return 0
	}
	name := normal(a.name)
	if !anyMatches(names, name) {
		return 0 // any more
	}
	resolver, _, _, _ := x.Key.Tuple(x.Side)
	until := now.Add(max(a.ttl, l.cfg.MinTTL))
	for _, addr := range a.addrs {
		l.put(&Entry{Name: name, Addr: addr, Pod: p.Pod, Resolver: resolver.Netip(), Learned: now, Until: until})
	}
	if len(a.addrs) == 0 {
		return 0
	}
	if _, fresh := l.fresh[name]; fresh {
		return l.turn
	}
	return l.taken[name]
}

// put adds an entry or prolongs it.
func (l *Learner) put(e *Entry) {
	r := l.records[e.Pod]
	if r == nil {
		r = &record{entries: map[taught]*Entry{}, names: map[string]int{}}
		l.records[e.Pod] = r
	}
	k := taught{e.Name, e.Addr}
	if old := r.entries[k]; old != nil {
		old.Resolver, old.InUse = e.Resolver, false
		if e.Until.After(old.Until) {
			old.Until = e.Until
		}
		return
	}
	if r.names[e.Name] >= l.cfg.PerName {
		l.dropSoonest(r, e.Name)
	}
	if len(r.entries) >= l.cfg.Addresses {
		l.dropSoonest(r, "")
	}
	r.entries[k] = e
	r.names[e.Name]++
	addrs := l.resolved[e.Name]
	if addrs == nil {
		addrs = map[netip.Addr]int{}
		l.resolved[e.Name] = addrs
	}
	if addrs[e.Addr]++; addrs[e.Addr] == 1 {
		l.fresh[e.Name] = struct{}{}
	}
}

// dropPart is the part of the entries that is dropped at once: looking at all of
// them for each new one would let a pod that is full keep all others waiting.
const dropPart = 16

// dropSoonest makes room for more of a name, or of any if it is empty: what ends
// first goes first.
func (l *Learner) dropSoonest(r *record, name string) {
	var of []*Entry
	for _, e := range r.entries {
		if name == "" || e.Name == name {
			of = append(of, e)
		}
	}
	slices.SortFunc(of, func(a, b *Entry) int { return a.Until.Compare(b.Until) })
	for _, e := range of[:max(len(of)/dropPart, 1)] {
		l.drop(r, e)
	}
}

// drop removes an entry.
func (l *Learner) drop(r *record, e *Entry) {
	delete(r.entries, taught{e.Name, e.Addr})
	if r.names[e.Name]--; r.names[e.Name] == 0 {
		delete(r.names, e.Name)
	}
	addrs := l.resolved[e.Name]
	if addrs[e.Addr]--; addrs[e.Addr] > 0 {
		return
	}
	delete(addrs, e.Addr)
	if len(addrs) == 0 {
		delete(l.resolved, e.Name)
	}
	l.fresh[e.Name] = struct{}{}
}
