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
}

// SetHost replaces what is known of the host, its own addresses and what it
// translates, for flows that are opened from now on. Of two Services with one
// address and port the first counts.
func (p *Plane) SetHost(own []netip.Addr, list []Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.host, p.services = newHostTable(p.seed, own), newServiceTable(p.seed, list)
	p.refresh()
}

// serviceTable maps addresses that the host translates to their backends: open
// addressing, at most half full, no pointers. The zero value has none.
type serviceTable struct {
	slots    []serviceSlot
	backends []backend
	seed     uint64
}

// serviceKey has no port zero: a slot whose port is 0 is free.
type serviceKey struct {
	addr  packet.Addr
	port  uint16
	proto packet.Proto
}

type serviceSlot struct {
	serviceKey
	from, to uint32 // in backends
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
		t.slots[at] = serviceSlot{key, from, uint32(len(t.backends))}
	}
	t.backends = slices.Clip(t.backends)
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

// lookup returns where a connection to an address and port may go: nil if the
// host doesn't translate it.
func (t *serviceTable) lookup(a packet.Addr, proto packet.Proto, port uint16) []backend {
	if len(t.slots) == 0 || port == 0 {
		return nil
	}
	s := &t.slots[t.find(serviceKey{a, port, proto})]
	return t.backends[s.from:s.to]
}

// serviceBatch is how many backends are classified together.
const serviceBatch = 64

// askService judges a flow that pod src opens to a Service: by all of its
// backends, one of which the host will choose.
//
// If all are allowed, or all denied, that is the verdict. If only some are, the
// flow goes on as long as every denied one is a pod of this node: its own hook
// judges what comes there, by the egress rules of src as well. A denied one
// elsewhere has no such hook, and what might reach it is denied.
func (w *worker) askService(snap *snapshot, src endpoint.ID, to []backend, proto packet.Proto) classify.Verdict {
	row := snap.endpoint(src).egress
	allowed, denied := classify.Free, classify.Verdict(0)
	var some, none, beyond bool // allowed, denied, denied elsewhere
	for len(to) > 0 {
		n := min(len(to), serviceBatch)
		q, v := w.service.queries[:n], w.service.verdicts[:n]
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
	if some && !beyond {
		return allowed
	}
	return denied
}

// serviceScratch is askService's.
type serviceScratch struct {
	queries  [serviceBatch]classify.Query
	verdicts [serviceBatch]classify.Verdict
}
