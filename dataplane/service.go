package dataplane

import (
	"math/bits"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// Service is an address and port that the host translates to one of Backends,
// and where a connection to it may really go. The host chooses; a pod that
// opens a connection there is judged by what it may reach.
type Service struct {
	Addr     netip.Addr
	Proto    packet.Proto
	Port     uint16
	Backends []netip.AddrPort
	// Guarded are pods' addresses from which the host itself lets through only
	// what it sends to allowed backends, and to pods of this node.
	Guarded []netip.Addr
}

// AnyLinkLocal stands for all link-local addresses of IPv6 of a Service: what the host
// translates at its own, it does at that of each pod's link. It is no host's address
// (RFC 4291, section 2.6.1). A Service at one of them by name comes before it.
var AnyLinkLocal = netip.MustParseAddr("fe80::")

var anyLinkLocal = packet.AddrFrom(AnyLinkLocal)

// SetHost replaces what is known of the host, its own addresses and what it
// translates: for new flows at once, for live ones with their next packet, where
// a pod may now call a Service that it could not, or not any more. Of two
// Services with one address and port the first counts. After an error that is so
// for the workers, and Repair makes up for what the kernel has not got.
func (p *Plane) SetHost(own []netip.Addr, list []Service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.snap.Load()
	p.host, p.services, p.answering = newHostTable(p.seed, own), newServiceTable(p.seed, list), answering(list)
	p.refresh()
	changed := p.otherwise(before)
	for _, id := range changed {
		p.slots[id].advance()
	}
	if len(changed) > 0 {
		p.refresh()
	}
	return p.putSlots(changed)
}

// protocols is a set of those without an opening that every packet shows.
type protocols uint8

const (
	answersUDP protocols = 1 << iota
	answersSCTP
)

func (s protocols) has(p packet.Proto) bool {
	return p == packet.ProtoUDP && s&answersUDP != 0 || p == packet.ProtoSCTP && s&answersSCTP != 0
}

// answering says what the backends of Services answer there, TCP left out.
func answering(list []Service) map[packet.Addr]protocols {
	out := map[packet.Addr]protocols{}
	for i := range list {
		var one protocols
		switch list[i].Proto {
		case packet.ProtoUDP:
			one = answersUDP
		case packet.ProtoSCTP:
			one = answersSCTP
		default:
			continue
		}
		for _, b := range list[i].Backends {
			out[packet.AddrFrom(b.Addr())] |= one
		}
	}
	return out
}

// otherwise lists the endpoints that may call a Service since services are no
// longer those of before, or may not any more, and those that answer for one since:
// divert may have been told to admit flows of theirs that go around the stack.
func (p *Plane) otherwise(before *snapshot) (ids []endpoint.ID) {
	snap := p.snap.Load()
	if snap.table == nil {
		return nil
	}
	keys := before.services.differs(&snap.services)
	if len(keys) == 0 {
		return nil
	}
	old := *snap
	old.services = before.services
	var s serviceScratch
	for i := range snap.local {
		id, l := endpoint.ID(i), &snap.local[i]
		changed := func(k serviceKey) bool {
			return slices.ContainsFunc(l.own, func(a packet.Addr) bool {
				return a.Is4() == k.addr.Is4() && s.reaches(&old, id, a, k) != s.reaches(snap, id, a, k)
			})
		}
		answers := l.answers&^before.endpoint(id).answers != 0
		if l.gen != 0 && (answers || slices.ContainsFunc(keys, changed)) {
			ids = append(ids, id)
		}
	}
	return ids
}

// serviceTable maps addresses that the host translates to their backends: open
// addressing, at most half full, no pointers. The zero value has none.
type serviceTable struct {
	slots    []serviceSlot
	backends []backend
	guarded  []packet.Addr
	seed     uint64
}

// service is where a connection to a Service may go, and from where the host
// judges that, too: borrowed from a serviceTable.
type service struct {
	to      []backend
	guarded []packet.Addr
}

// differs lists the keys that two tables have something else for.
func (t *serviceTable) differs(o *serviceTable) (keys []serviceKey) {
	for _, both := range [2][2]*serviceTable{{t, o}, {o, t}} {
		for i := range both[0].slots {
			k := both[0].slots[i].serviceKey
			if k.port == 0 {
				continue
			}
			a, b := both[0].lookup(k.addr, k.proto, k.port), both[1].lookup(k.addr, k.proto, k.port)
			if len(b.to) == 0 || both[0] == t && !(slices.Equal(a.to, b.to) && slices.Equal(a.guarded, b.guarded)) {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

// serviceKey has no port zero: a slot whose port is 0 is free.
type serviceKey struct {
	addr  packet.Addr
	port  uint16
	proto packet.Proto
}

type serviceSlot struct {
	serviceKey
	from, to       uint32 // in backends
	guarded, until uint32 // in guarded
}

type backend struct {
	addr packet.Addr
	port uint16
}

func newServiceTable(seed uint64, list []Service) serviceTable {
	if len(list) == 0 {
		return serviceTable{}
	}
	size := 1 << bits.Len(uint(2*len(list)|1))
	t := serviceTable{slots: make([]serviceSlot, size), seed: seed | 1}
	for i := range list {
		s := &list[i]
		key := serviceKey{packet.AddrFrom(s.Addr), s.Port, s.Proto}
		at := t.find(key)
		if s.Port == 0 || len(s.Backends) == 0 || t.slots[at].port != 0 {
			continue
		}
		from := uint32(len(t.backends))
		for _, b := range s.Backends {
			t.backends = append(t.backends, backend{packet.AddrFrom(b.Addr()), b.Port()})
		}
		guarded := uint32(len(t.guarded))
		for _, a := range s.Guarded {
			t.guarded = append(t.guarded, packet.AddrFrom(a))
		}
		t.slots[at] = serviceSlot{key, from, uint32(len(t.backends)), guarded, uint32(len(t.guarded))}
	}
	t.backends, t.guarded = slices.Clip(t.backends), slices.Clip(t.guarded)
	return t
}

// find returns the slot that a key has, or that it would have.
func (t *serviceTable) find(k serviceKey) int {
	mask := len(t.slots) - 1
	hi, lo := bits.Mul64(k.addr.Lo^t.seed, k.addr.Hi^uint64(k.port)<<8^uint64(k.proto)^0x9e3779b97f4a7c15)
	for i := int(hi^lo) & mask; ; i = (i + 1) & mask {
		if s := &t.slots[i]; s.port == 0 || s.serviceKey == k {
			return i
		}
	}
}

// lookup returns where a connection to an address and port may go: nowhere if
// the host doesn't translate it.
func (t *serviceTable) lookup(a packet.Addr, proto packet.Proto, port uint16) service {
	if len(t.slots) == 0 || port == 0 {
		return service{}
	}
	s := &t.slots[t.find(serviceKey{a, port, proto})]
	if s.port == 0 && a.IsLinkLocal() && !a.Is4() {
		s = &t.slots[t.find(serviceKey{anyLinkLocal, port, proto})]
	}
	return service{t.backends[s.from:s.to], t.guarded[s.guarded:s.until]}
}

// serviceBatch is how many backends are classified together.
const serviceBatch = 64

// serviceScratch is what a judgement of backends takes.
type serviceScratch struct {
	queries  [serviceBatch]classify.Query
	verdicts [serviceBatch]classify.Verdict
}

// ask judges a flow that pod src opens from an address to a Service: by all of
// its backends, one of which the host will choose.
//
// If all are allowed, or all denied, that is the verdict. If only some are, the
// flow goes on as long as each denied one is a pod of this node, whose own hook
// judges what comes there by the egress rules of src as well, or the host judges
// its choice. Else what might reach a denied one is denied.
func (s *serviceScratch) ask(snap *snapshot, src endpoint.ID, from packet.Addr, svc service, proto packet.Proto) classify.Verdict {
	row := snap.endpoint(src).egress
	allowed, denied := classify.Free, classify.Verdict(0)
	var some, none, beyond bool // allowed, denied, denied elsewhere
	for to := svc.to; len(to) > 0; {
		n := min(len(to), serviceBatch)
		q, v := s.queries[:n], s.verdicts[:n]
		for i := range q {
			q[i] = classify.Query{Row: row, Remote: to[i].addr, Proto: proto, Port: to[i].port}
		}
		snap.table.Classify(q, v)
		for i := range v {
			local := snap.addrs.lookup(to[i].addr)
			if local == src {
				v[i] = classify.Free // a pod reaches itself
			}
			switch {
			case v[i].Allowed():
				if !some || v[i].Audit() { // what is only an audit is told
					allowed = v[i]
				}
				some = true
			case !none || local == endpoint.None && !beyond:
				denied = v[i]
				fallthrough
			default:
				none, beyond = true, beyond || local == endpoint.None
			}
		}
		to = to[n:]
	}
	if some && (!beyond || slices.Contains(svc.guarded, from)) {
		return allowed
	}
	return denied
}

// reaches reports whether a pod may open a flow from one of its addresses to
// another, be that a Service's or not.
func (s *serviceScratch) reaches(snap *snapshot, src endpoint.ID, from packet.Addr, k serviceKey) bool {
	if svc := snap.services.lookup(k.addr, k.proto, k.port); len(svc.to) > 0 {
		return s.ask(snap, src, from, svc, k.proto).Allowed()
	}
	s.queries[0] = classify.Query{Row: snap.endpoint(src).egress, Remote: k.addr, Proto: k.proto, Port: k.port}
	snap.table.Classify(s.queries[:1], s.verdicts[:1])
	return s.verdicts[0].Allowed()
}
