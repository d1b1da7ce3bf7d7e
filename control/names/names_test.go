package names_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sluice-net/sluice/control/names"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
)

var (
	client   = netip.MustParseAddr("10.0.0.1")
	resolver = netip.MustParseAddr("10.0.0.53")
	addrs    = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.3")}
	pod      = names.Pod{Namespace: "x", Name: "client", UID: "1"}
)

const podID = 7

// class is a Learner with one pupil, and what it has released.
type class struct {
	*names.Learner
	t        testing.TB
	domains  map[string][]netip.Addr
	released []uint64
	ticket   uint64
}

func newClass(t testing.TB, change func(*names.Config)) *class {
	t.Helper()
	cfg := names.Default()
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	c := &class{t: t, domains: map[string][]netip.Addr{}}
	c.Learner = names.New(cfg, func(k event.Ticket) { c.released = append(c.released, k.Number) })
	c.SetPupils(map[endpoint.ID]names.Pupil{podID: {Pod: pod, Names: []policy.Name{policy.NewName("*.test", `^[-a-z0-9.]*[.]test[.]$`)}}},
		func(names.Pod) bool { return true })
	return c
}

// packet is one from the pod to port 53, or back.
func packetOf(proto packet.Proto, back bool, data []byte) *event.Lookup {
	x := &event.Lookup{Pod: podID, Answer: back, Whole: true, Data: data, TimeNs: time.Now().UnixNano()}
	src, dst, sport, dport := packet.AddrFrom(client), packet.AddrFrom(resolver), uint16(4000), uint16(53)
	if back {
		src, dst, sport, dport = dst, src, dport, sport
	}
	x.Key, x.Side = packet.MakeKey(src, dst, sport, dport, proto)
	return x
}

func (c *class) ask(id uint16, name string, kind dnsmessage.Type) {
	c.Hear(packetOf(packet.ProtoUDP, false, message(id, false, name, kind)))
}

// tell has an answer arrive, and returns what is new then, and whether the
// answer was released before anyone took it.
func (c *class) tell(m []byte) (heard []string, atOnce bool) {
	c.ticket++
	x := packetOf(packet.ProtoUDP, true, m)
	x.Held = event.Ticket{Number: c.ticket}
	c.Hear(x)
	atOnce = slices.Contains(c.released, c.ticket)
	heard, turn := c.Take(c.domains)
	if slices.Contains(c.released, c.ticket) != atOnce {
		c.t.Error("taking releases an answer")
	}
	c.Published(turn)
	if !slices.Contains(c.released, c.ticket) {
		c.t.Error("publishing does not release an answer")
	}
	return heard, atOnce
}

// record is one of an answer.
type record struct {
	owner string
	to    any // netip.Addr, or the name that owner is an alias of
	ttl   uint32
}

func message(id uint16, response bool, name string, kind dnsmessage.Type, records ...record) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, Response: response})
	b.EnableCompression()
	_ = b.StartQuestions()
	_ = b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET})
	_ = b.StartAnswers()
	for _, r := range records {
		h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(r.owner), Class: dnsmessage.ClassINET, TTL: r.ttl}
		switch to := r.to.(type) {
		case netip.Addr:
			if to.Is4() {
				_ = b.AResource(h, dnsmessage.AResource{A: to.As4()})
			} else {
				_ = b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: to.As16()})
			}
		case string:
			_ = b.CNAMEResource(h, dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to)})
		}
	}
	out, err := b.Finish()
	if err != nil {
		panic(err)
	}
	return out
}

// resized has the last record of a message, whose data has n bytes, say that it
// has another number of them.
func resized(m []byte, n int, says uint16) []byte {
	m = slices.Clone(m)
	binary.BigEndian.PutUint16(m[len(m)-n-2:], says)
	return m
}

const a4 = dnsmessage.TypeA

func TestLearn(t *testing.T) {
	right := message(1, true, "a.test.", a4, record{"a.test.", addrs[0], 300})
	other := func(id uint16, name string, kind dnsmessage.Type) []byte {
		return message(id, true, name, kind, record{name, addrs[0], 300})
	}
	failed := slices.Clone(right)
	failed[3] |= 2 // server failure
	tests := []struct {
		name   string
		answer []byte
		want   []netip.Addr
	}{
		{"plain", right, addrs[:1]},
		{"another identifier", other(2, "a.test.", a4), nil},
		{"another name", other(1, "b.test.", a4), nil},
		{"another case", other(1, "A.test.", a4), nil},
		{"another kind", other(1, "a.test.", dnsmessage.TypeAAAA), nil},
		{"a failure", failed, nil},
		{"a question", message(1, false, "a.test.", a4, record{"a.test.", addrs[0], 300}), nil},
		{"cut off", right[:len(right)-2], nil},
		{"a stranger's record", message(1, true, "a.test.", a4, record{"b.test.", addrs[0], 300}), nil},
		{"aliases in any order", message(1, true, "a.test.", a4, record{"c.test.", addrs[2], 300}, record{"b.test.", "C.test.", 300},
			record{"A.test.", "b.test.", 300}, record{"d.test.", addrs[0], 300}), addrs[2:]},
		{"aliases in a circle", message(1, true, "a.test.", a4, record{"a.test.", "b.test.", 300}, record{"b.test.", "a.test.", 300}), nil},
		{"several, of both families", message(1, true, "a.test.", a4, record{"a.test.", addrs[2], 1}, record{"a.test.", addrs[1], 300},
			record{"a.test.", addrs[2], 1}), []netip.Addr{addrs[2], addrs[1]}},
		{"nobody's addresses", message(1, true, "a.test.", a4, record{"a.test.", netip.MustParseAddr("127.0.0.1"), 1},
			record{"a.test.", netip.MustParseAddr("::ffff:192.0.2.1"), 1}, record{"a.test.", netip.MustParseAddr("224.0.0.1"), 1}), nil},
		{"no message", []byte{1, 2, 3}, nil},
		{"an address of no length", resized(right, 4, 0), nil},
		{"an address with something behind it", append(resized(right, 4, 6), 1, 2), nil},
		{"an IPv6 address of four bytes", resized(message(1, true, "a.test.", a4, record{"a.test.", addrs[1], 300}), 16, 4), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newClass(t, nil)
			c.ask(1, "a.test.", a4)
			heard, atOnce := c.tell(tt.answer)
			if got := c.domains["a.test"]; !slices.Equal(got, tt.want) || len(c.domains) > 1 {
				t.Errorf("learned %v, want %v", c.domains, tt.want)
			}
			if learned := len(tt.want) > 0; atOnce == learned || (len(heard) == 1) != learned {
				t.Errorf("released at once %v, heard %v", atOnce, heard)
			}
		})
	}
}

// TestLetters has names answered that only Unicode takes for those of the rules.
func TestLetters(t *testing.T) {
	c := newClass(t, nil)
	const kelvin = "\u212aeys.test."
	c.ask(1, kelvin, a4)
	c.tell(message(1, true, kelvin, a4, record{kelvin, addrs[0], 300}))
	c.ask(2, "keys.test.", a4)
	c.tell(message(2, true, "keys.test.", a4, record{kelvin, addrs[1], 300}))
	c.ask(3, "a.test.", a4)
	c.tell(message(3, true, "a.test.", a4, record{"a.test.", "\xfe.test.", 300}, record{"\xff.test.", addrs[2], 300}))
	if len(c.domains) > 0 {
		t.Errorf("learned %v", c.domains)
	}
}

// An answer counts once, and only between the ends of its question.
func TestOnce(t *testing.T) {
	c := newClass(t, nil)
	first := message(1, true, "a.test.", a4, record{"a.test.", addrs[0], 300})
	second := message(1, true, "a.test.", a4, record{"a.test.", addrs[2], 300})
	if heard, _ := c.tell(first); len(heard) > 0 {
		t.Error("learned what nobody asked")
	}
	c.ask(1, "a.test.", a4)
	x := packetOf(packet.ProtoUDP, true, second)
	x.Key, x.Side = packet.MakeKey(packet.AddrFrom(addrs[0]), packet.AddrFrom(client), 53, 4000, packet.ProtoUDP)
	c.Hear(x)
	x = packetOf(packet.ProtoUDP, true, second)
	x.Pod++
	c.Hear(x)
	c.tell(first)
	c.tell(second)
	if got := c.domains["a.test"]; !slices.Equal(got, addrs[:1]) {
		t.Errorf("learned %v", got)
	}
	c.ask(2, "a.example.", a4)
	c.tell(message(2, true, "a.example.", a4, record{"a.example.", addrs[0], 300}))
	if len(c.domains) != 1 {
		t.Errorf("learned what no policy names: %v", c.domains)
	}
	c.ask(3, "a.test.", a4)
	if heard, atOnce := c.tell(message(3, true, "a.test.", a4, record{"a.test.", addrs[0], 3000})); len(heard) > 0 || !atOnce {
		t.Errorf("what is known is heard as %v, released at once: %v", heard, atOnce)
	}
	if e := c.Entries(); len(e) != 1 || time.Until(e[0].Until) < 40*time.Minute || e[0].Pod != pod || e[0].Resolver != resolver {
		t.Errorf("entries %+v", e)
	}
}

// An answer that repeats what another one has taught that still waits, as when a
// pod asks all its resolvers at once, waits with it.
func TestRepeated(t *testing.T) {
	c := newClass(t, nil)
	hear := func(id uint16, name string, addr netip.Addr) {
		t.Helper()
		for _, x := range []*event.Lookup{
			packetOf(packet.ProtoUDP, false, message(id, false, name, a4)),
			packetOf(packet.ProtoUDP, true, message(id, true, name, a4, record{name, addr, 300})),
		} {
			src, dst, sport, dport := x.Key.Tuple(x.Side)
			if x.Answer {
				x.Held.Number = uint64(id)
				dport += id
			} else {
				sport += id
			}
			x.Key, x.Side = packet.MakeKey(src, dst, sport, dport, packet.ProtoUDP)
			c.Hear(x)
		}
	}
	want := func(when string, released ...uint64) {
		t.Helper()
		if !slices.Equal(c.released, released) {
			t.Errorf("%s: released %v, want %v", when, c.released, released)
		}
	}
	hear(1, "a.test.", addrs[0])
	hear(2, "a.test.", addrs[0])
	want("nobody has taken it")
	_, first := c.Take(c.domains)
	hear(3, "b.test.", addrs[2])
	hear(4, "a.test.", addrs[0])
	want("taken and not published")
	_, second := c.Take(c.domains)
	hear(5, "a.test.", addrs[0])
	c.Published(first)
	want("the first is published", 1, 2, 4, 5)
	hear(6, "a.test.", addrs[0])
	want("rules know of it", 1, 2, 4, 5, 6)
	hear(7, "b.test.", addrs[2])
	c.Published(second)
	want("all is published", 1, 2, 4, 5, 6, 3, 7)
}

// While nothing is published no more than so many answers wait: the worker has let go of
// the first ones long since.
func TestWaitingIsBounded(t *testing.T) {
	c := newClass(t, nil)
	const many = 5000
	for i := range uint64(many) {
		c.ask(uint16(i), "a.test.", a4)
		x := packetOf(packet.ProtoUDP, true, message(uint16(i), true, "a.test.", a4, record{"a.test.", addrs[0], 300}))
		x.Held.Number = i + 1
		c.Hear(x)
	}
	if n := many - len(c.released); n < 64 || n > 4096 {
		t.Errorf("%d answers wait", n)
	}
	_, turn := c.Take(c.domains)
	if c.Published(turn); len(c.released) != many {
		t.Errorf("%d of %d answers are released", len(c.released), many)
	}
}

// An answer that is sent again while the first one waits, which a resolver's TCP
// does soon, waits with it; those of other conversations don't.
func TestSentAgain(t *testing.T) {
	for _, proto := range []packet.Proto{packet.ProtoUDP, packet.ProtoTCP} {
		c := newClass(t, nil)
		hear := func(back bool, flags uint8, seq uint32, ticket uint64, m []byte) {
			x := packetOf(proto, back, m)
			if proto == packet.ProtoTCP {
				x.TCPFlags, x.Seq = flags, seq
				if len(m) > 0 {
					x.Data = append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)
				}
			}
			x.Held.Number = ticket
			c.Hear(x)
		}
		if proto == packet.ProtoTCP {
			hear(false, packet.TCPSyn, 99, 0, nil)
			hear(true, packet.TCPSyn|packet.TCPAck, 199, 0, nil)
		}
		hear(false, packet.TCPAck, 100, 0, message(1, false, "a.test.", a4))
		answer := message(1, true, "a.test.", a4, record{"a.test.", addrs[0], 300})
		hear(true, packet.TCPAck, 200, 1, answer)
		hear(true, packet.TCPAck, 200, 2, answer)
		_, turn := c.Take(c.domains)
		hear(true, packet.TCPAck, 200, 3, answer)
		other := packetOf(packet.ProtoUDP, true, message(2, true, "b.example.", a4))
		other.Key, other.Side = packet.MakeKey(packet.AddrFrom(resolver), packet.AddrFrom(client), 53, 4001, packet.ProtoUDP)
		other.Held.Number = 4
		c.Hear(other)
		if !slices.Equal(c.released, []uint64{4}) {
			t.Errorf("protocol %v: before rules know: released %v, want 4", proto, c.released)
		}
		c.Published(turn)
		hear(true, packet.TCPAck, 200, 5, answer)
		if !slices.Equal(c.released, []uint64{4, 1, 2, 3, 5}) {
			t.Errorf("protocol %v: after that: released %v, want all", proto, c.released)
		}
	}
}

// Where a pod's policies say at whom names are looked up, nobody else teaches them.
func TestResolverCounts(t *testing.T) {
	c := newClass(t, nil)
	other := netip.MustParseAddr("203.0.113.66")
	c.SetPupils(map[endpoint.ID]names.Pupil{podID: {Pod: pod, Names: []policy.Name{policy.NewName("any.test", `^any[.]test[.]$`)},
		From: func(a netip.Addr) []policy.Name {
			if a != resolver {
				return nil
			}
			return []policy.Name{policy.NewName("*.test", `^[-a-z0-9.]*[.]test[.]$`)}
		}}}, func(names.Pod) bool { return true })
	for i, from := range []netip.Addr{other, resolver} {
		for _, name := range []string{"a.test.", "any.test."} {
			for _, back := range []bool{false, true} {
				x := packetOf(packet.ProtoUDP, back, message(1, back, name, a4, record{name, addrs[2*i], 60}))
				src, dst, sport, dport := client, from, uint16(4000), uint16(53)
				if back {
					src, dst, sport, dport = dst, src, dport, sport
				}
				x.Key, x.Side = packet.MakeKey(packet.AddrFrom(src), packet.AddrFrom(dst), sport, dport, packet.ProtoUDP)
				c.Hear(x)
			}
		}
	}
	c.Take(c.domains)
	if !slices.Equal(c.domains["a.test"], addrs[2:]) || !slices.Equal(c.domains["any.test"], []netip.Addr{addrs[0], addrs[2]}) {
		t.Errorf("learned %v", c.domains)
	}
}

// TestBounds floods a pod's memory with questions, names and addresses.
func TestBounds(t *testing.T) {
	c := newClass(t, func(cfg *names.Config) { cfg.Addresses, cfg.PerName, cfg.Questions = 20, 5, 10 })
	for i := range uint16(11) {
		c.ask(i, "a.test.", a4)
	}
	c.tell(message(0, true, "a.test.", a4, record{"a.test.", addrs[0], 300}))
	if len(c.domains) > 0 {
		t.Error("the oldest of too many questions is remembered")
	}
	// One that waits long, and one that was put again, outlive any number of
	// others that were answered meanwhile.
	c.ask(200, "slow.test.", a4)
	for i := range uint16(100) {
		c.ask(300+i, "quick.test.", a4)
		c.tell(message(300+i, true, "quick.test.", a4))
		if i < 10 {
			c.tell(message(201, true, "again.test.", a4))
			c.ask(201, "again.test.", a4)
		}
	}
	for id, name := range map[uint16]string{200: "slow.test", 201: "again.test"} {
		c.tell(message(id, true, name+".", a4, record{name + ".", addrs[0], 0}))
		if len(c.domains[name]) == 0 {
			t.Errorf("forgot who asked for %s", name)
		}
	}
	for i := range uint16(100) {
		name := fmt.Sprintf("n%d.test.", i/7)
		c.ask(i, name, a4)
		c.tell(message(i, true, name, a4, record{name, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 100 + uint32(i)}))
	}
	count := 0
	for name, addrs := range c.domains {
		count += len(addrs)
		if len(addrs) > 5 {
			t.Errorf("%s has %d addresses", name, len(addrs))
		}
	}
	if count != 20 || len(c.Entries()) != 20 {
		t.Errorf("%d addresses, %d entries, want 20", count, len(c.Entries()))
	}
	if !slices.Contains(c.domains["n14.test"], netip.MustParseAddr("192.0.2.99")) {
		t.Error("the latest is not among them")
	}
}

// What has to go to make room for what another pod has taught already is to be
// taken as well.
func TestRoomWakes(t *testing.T) {
	c := newClass(t, func(cfg *names.Config) { cfg.Addresses = 1 })
	match := []policy.Name{policy.NewName("*.test", `^[-a-z0-9.]*[.]test[.]$`)}
	c.SetPupils(map[endpoint.ID]names.Pupil{podID: {Pod: pod, Names: match}, podID + 1: {Pod: names.Pod{Namespace: "x", Name: "other"}, Names: match}},
		func(names.Pod) bool { return true })
	teach := func(id endpoint.ID, name string, addr netip.Addr) {
		for _, back := range []bool{false, true} {
			x := packetOf(packet.ProtoUDP, back, message(1, back, name, a4, record{name, addr, 60}))
			x.Pod = id
			c.Hear(x)
		}
	}
	teach(podID, "a.test.", addrs[0])
	teach(podID+1, "b.test.", addrs[2])
	<-c.Changed()
	c.Take(c.domains)
	teach(podID, "b.test.", addrs[2])
	select {
	case <-c.Changed():
	default:
		t.Error("a name resolves to nothing any more, and nobody is told")
	}
	if heard, _ := c.Take(c.domains); !slices.Equal(heard, []string{"a.test"}) || len(c.domains) != 1 {
		t.Errorf("heard %v, left %v", heard, c.domains)
	}
}

// TestStream cuts conversations over TCP into segments at random, doubles and
// shuffles some, and wants each message to be understood.
func TestStream(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := newClass(t, nil)
		question, reply := []byte{}, []byte{}
		add := func(to *[]byte, m []byte) {
			*to = append(binary.BigEndian.AppendUint16(*to, uint16(len(m))), m...)
		}
		n := 1 + r.IntN(4)
		want := n
		for i := range n {
			name := fmt.Sprintf("n%d.test.", i)
			add(&question, message(uint16(i), false, name, a4))
			add(&reply, message(uint16(i), true, name, a4, record{name, addrs[0], 300}))
		}
		for _, back := range []bool{false, true} {
			data := question
			if back {
				data = reply
			}
			start := r.Uint32()
			if r.IntN(6) > 0 {
				x := packetOf(packet.ProtoTCP, back, nil)
				x.Seq, x.TCPFlags = start-1, packet.TCPSyn
				c.Hear(x)
			} else { // the opening was not seen
				want = 0
			}
			for _, s := range segments(r, data) {
				x := packetOf(packet.ProtoTCP, back, data[s.from:s.to])
				x.Seq, x.TCPFlags = start+uint32(s.from), packet.TCPAck
				c.Hear(x)
			}
		}
		c.Take(c.domains)
		if len(c.domains) != want {
			t.Errorf("seed %d: learned %d of %d names", seed, len(c.domains), want)
		}
	}
}

// TestStreamForged has a pod look up a record of its own making, which holds an
// answer, and make its stream be forgotten so that it goes on with that.
func TestStreamForged(t *testing.T) {
	framed := func(m []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...) }
	for name, forget := range map[string]func(c *class, hear func(back bool, seq uint32, flags uint8, data []byte)){
		"reset": func(_ *class, hear func(bool, uint32, uint8, []byte)) { hear(false, 7, packet.TCPRst, nil) },
		"many": func(c *class, _ func(bool, uint32, uint8, []byte)) {
			for port := range uint16(64) {
				x := packetOf(packet.ProtoTCP, false, nil)
				src, dst, _, _ := x.Key.Tuple(x.Side)
				x.Key, x.Side = packet.MakeKey(src, dst, 5000+port, 53, packet.ProtoTCP)
				x.TCPFlags = packet.TCPSyn
				c.Hear(x)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClass(t, nil)
			hear := func(back bool, seq uint32, flags uint8, data []byte) {
				x := packetOf(packet.ProtoTCP, back, data)
				x.Seq, x.TCPFlags = seq, flags
				c.Hear(x)
			}
			hear(false, 99, packet.TCPSyn, nil)
			hear(true, 999, packet.TCPSyn|packet.TCPAck, nil)
			forged := framed(message(1, true, "a.test.", a4, record{"a.test.", addrs[0], 300}))
			first := framed(make([]byte, 100+len(forged)))[:2+100]
			hear(true, 1000, packet.TCPAck, first)
			hear(false, 100, packet.TCPAck, framed(message(1, false, "a.test.", a4)))
			forget(c, hear)
			hear(true, 1000+uint32(len(first)), packet.TCPAck, forged)
			if c.Take(c.domains); len(c.domains) > 0 {
				t.Errorf("learned %v", c.domains)
			}
		})
	}
}

type span struct{ from, to int }

// segments cuts n bytes up; the first one comes first.
func segments(r *rand.Rand, data []byte) (out []span) {
	for at := 0; at < len(data); {
		end := min(at+1+r.IntN(40), len(data))
		out = append(out, span{at, end})
		if at > 0 && r.IntN(5) == 0 { // again, from a bit before
			out = append(out, span{max(at-r.IntN(10), 0), end})
		}
		at = end
	}
	for i := 1; i+1 < len(out); i++ {
		if r.IntN(4) == 0 {
			out[i], out[i+1] = out[i+1], out[i]
		}
	}
	return out
}

// fakePlane says who is live, of those that it is asked about.
type fakePlane struct {
	live map[netip.Addr]struct{}
	ok   bool
	slow time.Duration // that it takes
}

func (f *fakePlane) ReadLookups(ctx context.Context, _ func(*event.Lookup)) { <-ctx.Done() }
func (f *fakePlane) Live(_ context.Context, addrs []netip.Addr) (map[netip.Addr]struct{}, bool) {
	live := map[netip.Addr]struct{}{}
	for _, a := range addrs {
		if _, ok := f.live[a]; ok {
			live[a] = struct{}{}
		}
	}
	time.Sleep(f.slow)
	return live, f.ok
}

func TestExpire(t *testing.T) {
	c := newClass(t, func(cfg *names.Config) { cfg.MinTTL = 0 })
	for i, name := range []string{"used.test.", "idle.test.", "long.test."} {
		ttl := uint32(0)
		if name == "long.test." {
			ttl = 300
		}
		c.ask(uint16(i), name, a4)
		c.tell(message(uint16(i), true, name, a4, record{name, addrs[i], ttl}))
	}
	plane := &fakePlane{live: map[netip.Addr]struct{}{addrs[0]: {}}}
	c.Expire(t.Context(), plane)
	if heard, _ := c.Take(c.domains); len(heard) > 0 {
		t.Errorf("dropped %v though nobody knows whether it is in use", heard)
	}
	plane.ok = true
	c.Expire(t.Context(), plane)
	if heard, _ := c.Take(c.domains); !slices.Equal(heard, []string{"idle.test"}) || len(c.domains) != 2 {
		t.Errorf("dropped %v, left %v", heard, c.domains)
	}
	if e := c.Entries(); !e[1].InUse || e[0].InUse {
		t.Errorf("entries %+v", e)
	}
	plane.live = nil
	c.Expire(t.Context(), plane)
	if heard, _ := c.Take(c.domains); !slices.Equal(heard, []string{"used.test"}) {
		t.Errorf("dropped %v", heard)
	}
}

// TestExpireSlowly lets a name's time end while the dataplane is asked about
// another one: nobody has said yet whether it is in use.
func TestExpireSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClass(t, func(cfg *names.Config) { cfg.MinTTL = 0 })
		for i, name := range []string{"idle.test.", "used.test."} {
			c.ask(uint16(i), name, a4)
			c.tell(message(uint16(i), true, name, a4, record{name, addrs[i], uint32(2 * i)}))
		}
		plane := &fakePlane{live: map[netip.Addr]struct{}{addrs[1]: {}}, ok: true, slow: 3 * time.Second}
		for range 2 {
			c.Expire(t.Context(), plane)
			c.Take(c.domains)
		}
		if e := c.Entries(); len(e) != 1 || e[0].Name != "used.test" || !e[0].InUse {
			t.Errorf("entries %+v", e)
		}
	})
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	use := func(cfg *names.Config) { cfg.File = path }
	c := newClass(t, use)
	c.ask(1, "a.test.", a4)
	c.tell(message(1, true, "a.test.", a4, record{"a.test.", addrs[0], 300}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx, &fakePlane{}); err != nil {
		t.Fatal(err)
	}
	next := newClass(t, use)
	heard, _ := next.Take(next.domains)
	if next.Note() != "" || !slices.Equal(heard, []string{"a.test"}) || !slices.Equal(next.domains["a.test"], addrs[:1]) {
		t.Errorf("note %q, heard %v, %v", next.Note(), heard, next.domains)
	}
	if got := next.Entries(); len(got) != 1 || !got[0].Until.Round(0).Equal(c.Entries()[0].Until.Round(0)) {
		t.Errorf("entries %+v", got)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"empty": "", "cut off": string(good[:len(good)/2]), "another version": strings.Replace(string(good), `"version":1`, `"version":2`, 1),
		"no names": `{"version":1,"names":[{"name":"A b","address":"192.0.2.1"},{"name":"a.test"}]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := newClass(t, use)
		if heard, _ := c.Take(c.domains); len(heard) > 0 || c.Note() == "" {
			t.Errorf("%s: heard %v, note %q", what, heard, c.Note())
		}
	}
}

// FuzzAnswer feeds any bytes as questions and answers.
func FuzzAnswer(f *testing.F) {
	f.Add(message(1, true, "a.test.", a4, record{"a.test.", "b.test.", 1}, record{"b.test.", addrs[0], 1}))
	f.Add(message(1, false, "a.test.", a4))
	f.Fuzz(func(t *testing.T, m []byte) {
		c := newClass(t, nil)
		c.ask(1, "a.test.", a4)
		for _, proto := range []packet.Proto{packet.ProtoUDP, packet.ProtoTCP} {
			for _, back := range []bool{false, true} {
				c.Hear(packetOf(proto, back, m))
			}
		}
		c.Take(c.domains)
		for name, addrs := range c.domains {
			if !strings.HasSuffix(name, ".test") || len(addrs) == 0 {
				t.Errorf("learned %q: %v", name, addrs)
			}
		}
	})
}
