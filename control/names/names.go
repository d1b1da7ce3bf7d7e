// Package names learns what domain names resolve to, from the answers that
// resolvers give to pods of this node whose policies name domains.
//
// A worker hands on what these pods and their resolvers say to each other, and
// holds an answer back; the Learner reads it, and has it released at once if the
// rules in force know all that it tells, else when the loop has put such into
// force. Only an answer to a question that was seen is believed: between the same
// addresses and ports, with the same identifier and question, and only the
// first one, over TCP only if the opening was seen too; of its records only the
// addresses that the question's name leads to, through its aliases. A pod can teach
// only names that its own policies name, or allow it to look up, and where they say
// at whom, only what that one answers.
//
// What any pod has learned holds for all pods of the node, as it does in
// Cilium: policies say who may use it. An address stays for as long as its
// record lives, MinTTL at least, and beyond that while a connection of the node
// uses it. All memory is bounded per pod.
//
// One goroutine reads, one expires and saves; the loop takes what is new. A
// Learner is safe for concurrent use. To read an answer costs some
// microseconds.
package names

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// Config says what is kept, and for how long.
type Config struct {
	MinTTL    time.Duration // an address stays for so long at least
	Addresses int           // most that a pod has taught, names counted by address
	PerName   int           // of these, of one name
	Questions int           // most that wait for an answer, a pod
	File      string        // where it is kept over a restart; empty: nowhere
}

// Default returns the limits of a node. Cilium keeps an address for its TTL
// and drops what is over once a minute, and 1,000 addresses a name.
func Default() Config {
	return Config{MinTTL: time.Minute, Addresses: 4000, PerName: 1000, Questions: 1024}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.MinTTL >= 0 && c.MinTTL <= maxTTL, "least TTL %v: want 0 to %v", c.MinTTL, maxTTL)
	check(c.Addresses > 0, "addresses %d: want 1 or more", c.Addresses)
	check(c.PerName > 0, "addresses of a name %d: want 1 or more", c.PerName)
	check(c.Questions > 0, "questions %d: want 1 or more", c.Questions)
	return errors.Join(errs...)
}

// Pod names a pod.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
}

// Pupil is a pod that learns names.
type Pupil struct {
	Pod   Pod
	Names []policy.Name // that it may learn, whoever answers
	// From returns those that a resolver may teach it besides; nil: none. Hear calls
	// it and holds no lock.
	From func(resolver netip.Addr) []policy.Name
}

// Entry is an address that a name resolved to.
type Entry struct {
	Name     string     `json:"name"` // in lower case, without its final dot
	Addr     netip.Addr `json:"address"`
	Pod      Pod        `json:"pod"`      // that asked
	Resolver netip.Addr `json:"resolver"` // that answered
	Learned  time.Time  `json:"learned"`
	Until    time.Time  `json:"until"`
	InUse    bool       `json:"inUse,omitempty"` // kept beyond Until by a connection
}

// Learner knows what names resolve to.
type Learner struct {
	cfg      Config
	now      func() time.Time
	release  func(event.Ticket)
	wake     chan struct{} // the loop's
	unsaved  chan struct{}
	mu       sync.Mutex // guards what follows
	note     string     // about the file
	pupils   map[endpoint.ID]*pupil
	records  map[Pod]*record
	resolved map[string]map[netip.Addr]int // how many pods have taught it
	fresh    map[string]struct{}           // names that the loop has to take
	taken    map[string]uint64             // names that were taken and rules don't know of yet: by turn
	waiting  []waiting
	turn     uint64 // of the next Take, from 1 on
}

// pupil is the conversations of a pod.
type pupil struct {
	Pupil
	questions questions
	streams   streams
}

// maxWaiting is how many frames may wait. A worker lets go of them in time by itself,
// also if nothing is published any more.
const maxWaiting = 1 << 12

// waiting is a frame that waits until a turn is published.
type waiting struct {
	ticket event.Ticket
	flow   packet.Key
	turn   uint64
}

// New returns a Learner that knows what the file says. release has a frame go
// on; it must not block.
func New(cfg Config, release func(event.Ticket)) *Learner {
	l := &Learner{cfg: cfg, now: time.Now, release: release,
		wake: make(chan struct{}, 1), unsaved: make(chan struct{}, 1),
		pupils: map[endpoint.ID]*pupil{}, records: map[Pod]*record{},
		resolved: map[string]map[netip.Addr]int{}, fresh: map[string]struct{}{}, taken: map[string]uint64{}, turn: 1}
	l.note = l.load()
	return l
}

// Note says what is wrong with the file, if anything is.
func (l *Learner) Note() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.note
}

// Changed receives when there is something to take.
func (l *Learner) Changed() <-chan struct{} { return l.wake }

// SetPupils says who learns which names. there says which pods the node has.
func (l *Learner) SetPupils(pupils map[endpoint.ID]Pupil, there func(Pod) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, p := range l.pupils {
		if now, still := pupils[id]; !still || now.Pod != p.Pod {
			delete(l.pupils, id)
		}
	}
	for id, now := range pupils {
		if p := l.pupils[id]; p != nil {
			p.Names, p.From = now.Names, now.From
		} else {
			l.pupils[id] = &pupil{Pupil: now, questions: newQuestions(l.cfg.Questions), streams: streams{}}
		}
	}
	for pod, r := range l.records {
		switch {
		case there(pod):
			r.orphaned = time.Time{}
		case r.orphaned.IsZero():
			r.orphaned = l.now()
		}
	}
}

// Hear takes a packet of a conversation in.
func (l *Learner) Hear(x *event.Lookup) {
	names := l.lessons(x)
	l.mu.Lock()
	turn := uint64(0)
	if p := l.pupils[x.Pod]; p != nil {
		p.messages(x, func(m []byte, whole bool) {
			if x.Answer {
				turn = max(turn, l.answer(p, names, x, m, whole))
			} else {
				p.ask(names, x, m, l.now())
			}
		})
	}
	changed, held := len(l.fresh) > 0, x.Held.Number != 0
	// An answer that is sent again teaches nothing and says all the same what the
	// first one does: a resolver's TCP does so within milliseconds (RFC 8985).
	for i := range l.waiting {
		if l.waiting[i].flow == x.Key {
			turn = max(turn, l.waiting[i].turn)
		}
	}
	if turn > 0 && held && len(l.waiting) < maxWaiting {
		l.waiting = append(l.waiting, waiting{x.Held, x.Key, turn})
		held = false
	}
	l.mu.Unlock()
	if held {
		l.release(x.Held)
	}
	if changed { // also by what had to go to make room
		poke(l.wake)
		poke(l.unsaved)
	}
}

// lessons returns the names that the resolver of a conversation may teach.
func (l *Learner) lessons(x *event.Lookup) []policy.Name {
	l.mu.Lock()
	var p Pupil
	if known := l.pupils[x.Pod]; known != nil {
		p = known.Pupil
	}
	l.mu.Unlock()
	if p.From == nil {
		return p.Names
	}
	src, dst, _, _ := x.Key.Tuple(x.Side)
	if !x.Answer {
		src = dst
	}
	return slices.Concat(p.Names, p.From(src.Netip()))
}

// Take brings domains, what each name resolves to, up to date and returns the
// names that resolve to something else. Published is to be called with the
// turn when rules that know of it are in force.
func (l *Learner) Take(domains map[string][]netip.Addr) (heard []string, turn uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	heard = make([]string, 0, len(l.fresh))
	for name := range l.fresh {
		heard = append(heard, name)
		if addrs := l.resolved[name]; len(addrs) > 0 {
			domains[name] = slices.SortedFunc(maps.Keys(addrs), netip.Addr.Compare)
			l.taken[name] = l.turn
		} else {
			delete(domains, name)
			delete(l.taken, name)
		}
	}
	clear(l.fresh)
	slices.Sort(heard)
	l.turn++
	return heard, l.turn - 1
}

// Published releases the answers that were taken up to a turn.
func (l *Learner) Published(turn uint64) {
	l.mu.Lock()
	var done []waiting
	l.waiting = slices.DeleteFunc(l.waiting, func(w waiting) bool {
		if w.turn > turn {
			return false
		}
		done = append(done, w)
		return true
	})
	maps.DeleteFunc(l.taken, func(_ string, t uint64) bool { return t <= turn })
	l.mu.Unlock()
	for _, w := range done {
		l.release(w.ticket)
	}
}

// Entries lists what is known, by name, address and pod. Until is given by the
// wall clock as it is now, whatever it was when the entry was learned.
func (l *Learner) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out, now := []Entry{}, l.now()
	for _, r := range l.records {
		for _, e := range r.entries {
			x := *e
			if at := now.Add(x.Until.Sub(now)); at.Round(0).Sub(x.Until.Round(0)).Abs() > time.Second {
				x.Until = at // the clock was set meanwhile
			}
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Addr.Compare(b.Addr),
			cmp.Compare(a.Pod.Namespace, b.Pod.Namespace), cmp.Compare(a.Pod.Name, b.Pod.Name))
	})
	return out
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
