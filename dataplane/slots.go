package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/xdpprog"
)

// slot is the place of an endpoint in the kernel's maps. gen outlives the
// endpoint: a flow that some earlier one was allowed never fits a later one.
type slot struct {
	ep      endpoint.Endpoint
	used    bool
	guarded bool   // the programs are on its link
	gen     uint32 // last given out
	adopted bool   // gen is an earlier agent's
	born    uint32 // the first that this endpoint, or the next, can have got
	ready   bool   // gen is in force
	ruleGen uint32 // rule.Endpoint.Generation that gen stands for
	learns  bool   // names from the answers of resolvers
	untold  bool   // the kernel has not got what is above; Repair tells it
}

// notInForce marks a slot's gen in the kernel while its endpoint has no rules in
// force. No flow was admitted under such a number, and the next agent still
// learns which one was the last: counting from the start again it would give out
// numbers that flows in the caches bear.
const notInForce = 1 << 31

// unheard is how many generations an earlier agent may have given its workers,
// whose flows bear them, that the kernel was not told of before it ended.
const unheard = 16

// next is the generation that is given out next.
func (s *slot) next() uint32 {
	step := uint32(1)
	if s.adopted {
		step += unheard
	}
	return max((s.gen+step)&^notInForce, 1)
}

// advance gives out a generation.
func (s *slot) advance() { s.gen, s.adopted = s.next(), false }

// adopt takes over what an earlier agent left of a slot. What was in force on a
// link stays so until the first Publish.
func (s *slot) adopt(id endpoint.ID, e xdpprog.Endpoint, bound bool) {
	s.gen, s.adopted = e.Gen&^notInForce, true
	if bound {
		s.ready = s.gen != 0 && e.Gen == s.gen
		s.ep = endpoint.Endpoint{ID: id, Link: endpoint.Link{Ifindex: int(e.Ifindex), MAC: e.MAC, HostMAC: e.HostMAC}}
	}
}

// adoptSlots learns which links an earlier agent served, and in which slots.
func (p *Plane) adoptSlots() error {
	p.slots = make([]slot, p.objs.Slots())
	links, err := p.objs.BoundLinks()
	if err != nil {
		return err
	}
	taken := make(map[endpoint.ID]bool)
	for ifindex, s := range links {
		// Sockets die with their agent; the programs before them are no use.
		if err := p.objs.Detach(xdpprog.PodXDP, ifindex); err != nil {
			return err
		}
		if s > 0 && int(s) < len(p.slots) {
			p.byLink[ifindex] = endpoint.ID(s)
			taken[endpoint.ID(s)] = true
		}
	}
	for i := 1; i < len(p.slots); i++ {
		e, err := p.objs.Endpoint(uint32(i))
		if err != nil {
			return err
		}
		id := endpoint.ID(i)
		p.slots[i].adopt(id, e, taken[id])
		if !taken[id] {
			p.free = append(p.free, id)
		}
	}
	return nil
}

// Left reports whether an earlier agent has left its programs on the link of an
// endpoint, for a pod with the same MAC and addresses, and nobody has been bound to
// it since. The link is the device that it was then, not another with its index.
func (p *Plane) Left(ep endpoint.Endpoint) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, bound := p.byLink[ep.Link.Ifindex]
	if !bound {
		return false
	}
	s := &p.slots[id]
	if s.used || s.ep.Link.MAC != ep.Link.MAC || s.ep.Link.HostMAC != ep.Link.HostMAC {
		return false
	}
	left, addrs := p.objs.PodAddrs(uint32(id)), podAddrs(&ep)
	if len(left) != len(addrs) || slices.ContainsFunc(addrs, func(a xdpprog.Addr) bool { return !slices.Contains(left, a) }) {
		return false
	}
	for _, at := range []xdpprog.Point{xdpprog.PodIngress, xdpprog.PodEgress} {
		if !p.objs.Attached(at, ep.Link.Ifindex) && !p.filters.Attached(at, ep.Link.Ifindex) {
			return false
		}
	}
	return true
}

// Attach diverts a pod's traffic: from when it returns, nothing reaches or
// leaves the pod unjudged. Until the next Publish that knows the endpoint it
// is isolated, unless an earlier agent served the link: then what is in force
// stays so. Attach again to change the addresses. ep.ID is ignored.
func (p *Plane) Attach(ep endpoint.Endpoint) (endpoint.ID, error) {
	id, _, err := p.Bind(ep)
	if err == nil {
		err = p.Guard(id)
	}
	if err != nil {
		return endpoint.None, err
	}
	return id, nil
}

// Bind is the first part of Attach, and quick: the endpoint has its place, so
// that rules can be published for it. Its link is not diverted yet, unless it
// was before; Guard does that. adopted: an earlier agent's programs are on the
// link. They don't know this one's sockets, so Guard should come before Publish.
func (p *Plane) Bind(ep endpoint.Endpoint) (id endpoint.ID, adopted bool, err error) {
	defer p.turns.take(ep.Link.Ifindex)()
	p.mu.Lock()
	defer p.mu.Unlock()
	before, bound := p.byLink[ep.Link.Ifindex]
	adopted = bound && !p.slots[before].used
	if err := p.bind(&ep); err != nil {
		return endpoint.None, false, fmt.Errorf("attach %s: %w", ep, err)
	}
	return ep.ID, adopted, nil
}

func (p *Plane) bind(ep *endpoint.Endpoint) (err error) {
	if ep.ID, err = p.slotFor(ep); err != nil {
		return err
	}
	s := &p.slots[ep.ID]
	if s.used && s.ready && slices.ContainsFunc(s.ep.Addrs, func(a netip.Addr) bool { return !slices.Contains(ep.Addrs, a) }) {
		s.advance() // its flows at that address are nobody's any more
	}
	if err := errors.Join(
		p.putEndpoint(uint32(ep.ID), s.kernel(ep)),
		p.objs.SetOwnAddrs(uint32(ep.ID), ownAddrs(ep)),
		p.objs.SetPodAddrs(uint32(ep.ID), podAddrs(ep)),
		p.objs.BindLink(ep.Link.Ifindex, uint32(ep.ID)),
	); err != nil {
		if !s.used {
			return errors.Join(err, p.release(ep.ID, ep.Link.Ifindex))
		}
		s.untold = true
		return err
	}
	if !s.used && !s.ready { // else an earlier agent served this pod
		s.born = s.next()
	}
	s.ep, s.used, s.untold = *ep, true, false
	p.byLink[ep.Link.Ifindex] = ep.ID
	p.refresh()
	return nil
}

// Guard is the other part of Attach: it puts the programs on the link of a
// bound endpoint. If it can't, and they were not there before, the endpoint is
// gone.
//
// Each program of a new link waits for an RCU grace period, 10 ms and more, so
// that is done without p.mu: rules are published meanwhile, also for this
// endpoint, and other links are attached. Those who work on one link take turns.
func (p *Plane) Guard(id endpoint.ID) error {
	ifindex, done, ok := p.linkOf(id)
	if !ok {
		return fmt.Errorf("attach endpoint %d: not bound", id)
	}
	defer done()
	err := errors.Join(
		p.attach(xdpprog.PodIngress, ifindex),
		p.attach(xdpprog.PodEgress, ifindex),
	)
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.slots[id]
	before := s.guarded
	s.guarded = err == nil
	if err == nil {
		return nil
	}
	err = fmt.Errorf("attach %s: %w", s.ep, err)
	if !before {
		err = errors.Join(err, p.release(id, ifindex))
		p.refresh()
	}
	return err
}

// slotFor returns the slot that a link has, or a free one.
func (p *Plane) slotFor(ep *endpoint.Endpoint) (endpoint.ID, error) {
	if id, ok := p.byLink[ep.Link.Ifindex]; ok {
		s := &p.slots[id]
		samePod := !s.used || s.ep.UID == ep.UID && s.ep.String() == ep.String()
		if s.ep.Link.MAC == ep.Link.MAC && samePod {
			return id, nil
		}
		// The programs stay on the link, which is cut off until it is bound anew.
		if err := p.release(id, ep.Link.Ifindex); err != nil {
			return endpoint.None, err
		}
	}
	if len(p.free) == 0 {
		return endpoint.None, fmt.Errorf("all %d endpoints in use", len(p.slots)-1)
	}
	id := p.free[0]
	p.free = p.free[1:]
	return id, nil
}

func (s *slot) kernel(ep *endpoint.Endpoint) xdpprog.Endpoint {
	e := xdpprog.Endpoint{Ifindex: uint32(ep.Link.Ifindex), MAC: ep.Link.MAC, HostMAC: ep.Link.HostMAC, Gen: s.gen}
	if !s.ready {
		e.Gen |= notInForce
	}
	return e
}

// attach puts a program at a point of a link. It needs no lock: the workers call
// it as well, while a Publish may be waiting for them.
func (p *Plane) attach(at xdpprog.Point, ifindex int) error {
	if at.XDP() || !p.noTCX.Load() {
		err := p.objs.Attach(at, ifindex)
		if !errors.Is(err, xdpprog.ErrNoTCX) {
			return err
		}
		p.noTCX.Store(true)
	}
	// A predecessor may have had tcx: a frame must not meet both.
	if err := p.objs.Detach(at, ifindex); err != nil {
		return err
	}
	return p.filters.Attach(at, ifindex, p.objs.FilterFD(at))
}

// Detach stops diverting a pod's traffic. Its flows are void.
func (p *Plane) Detach(id endpoint.ID) error {
	ifindex, done, ok := p.linkOf(id)
	if !ok {
		return fmt.Errorf("detach endpoint %d: not attached", id)
	}
	defer done()
	err := p.unprogram(ifindex)
	p.mu.Lock()
	defer p.mu.Unlock()
	err = errors.Join(err, p.release(id, ifindex))
	p.refresh()
	return err
}

// Cut voids an endpoint and leaves the programs on its link, which carries
// nothing from then on: its pod is gone or has another link, its sandbox may
// still be up. Attach puts the link to use again, Uncut takes the programs off.
func (p *Plane) Cut(id endpoint.ID) error {
	ifindex, done, ok := p.linkOf(id)
	if !ok {
		return fmt.Errorf("cut endpoint %d off: not attached", id)
	}
	defer done()
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.release(id, ifindex)
	p.refresh()
	return err
}

// linkOf waits for the turn at the link of an attached endpoint, which stays
// attached until done.
func (p *Plane) linkOf(id endpoint.ID) (ifindex int, done func(), ok bool) {
	for {
		before, attached := p.indexOf(id)
		if !attached {
			return 0, nil, false
		}
		done = p.turns.take(before)
		if now, attached := p.indexOf(id); attached && now == before {
			return now, done, true
		}
		done() // another endpoint has the slot by now, or none
	}
}

func (p *Plane) indexOf(id endpoint.ID) (ifindex int, attached bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(id) >= len(p.slots) || !p.slots[id].used {
		return 0, false
	}
	return p.slots[id].ep.Link.Ifindex, true
}

// Uncut takes the programs off a link that is not attached, as the link is gone
// or not a pod's any more.
func (p *Plane) Uncut(ifindex int) error {
	defer p.turns.take(ifindex)()
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, bound := p.byLink[ifindex]; bound {
		return nil
	}
	return p.unprogram(ifindex)
}

// Prune forgets the links of an earlier agent that no pod has claimed: they
// stay cut off until they are attached. It is called once all pods are known.
func (p *Plane) Prune() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, id := range p.byLink {
		if !p.slots[id].used {
			errs = append(errs, p.drop(id))
		}
	}
	return errors.Join(errs...)
}

// drop frees a slot and takes the programs off its link.
func (p *Plane) drop(id endpoint.ID) error {
	ifindex := p.slots[id].ep.Link.Ifindex
	return errors.Join(p.unprogram(ifindex), p.release(id, ifindex))
}

func (p *Plane) unprogram(ifindex int) error {
	errs := []error{p.objs.Detach(xdpprog.PodXDP, ifindex), p.objs.Detach(xdpprog.PodIngress, ifindex), p.objs.Detach(xdpprog.PodEgress, ifindex)}
	if p.noTCX.Load() {
		errs = append(errs, p.filters.Detach(xdpprog.PodIngress, ifindex), p.filters.Detach(xdpprog.PodEgress, ifindex))
	}
	return errors.Join(errs...)
}

// release gives a slot back; its gen goes on.
func (p *Plane) release(id endpoint.ID, ifindex int) error {
	s := &p.slots[id]
	s.advance()
	*s = slot{gen: s.gen, born: s.next()}
	p.released++
	delete(p.byLink, ifindex)
	p.free = append(p.free, id)
	p.objs.ForgetAsked(uint32(id))
	return errors.Join(
		p.objs.UnbindLink(ifindex),
		p.putSlots([]endpoint.ID{id}),
		p.objs.SetOwnAddrs(uint32(id), nil),
		p.objs.SetPodAddrs(uint32(id), nil),
	)
}

// Endpoints returns the attached endpoints by slot, with their IDs.
func (p *Plane) Endpoints() []endpoint.Endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	var eps []endpoint.Endpoint
	for i := range p.slots {
		if p.slots[i].used {
			eps = append(eps, p.slots[i].ep)
		}
	}
	return eps
}

// Generation returns the generation of an endpoint's rules that is in force in
// the kernel, 0 if it has none yet or its link is not diverted yet.
func (p *Plane) Generation(id endpoint.ID) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(id) >= len(p.slots) || !p.slots[id].guarded || !p.slots[id].ready {
		return 0
	}
	return p.slots[id].gen
}

// Publish puts compiled rules in force: for new flows at once, for live ones
// of endpoints whose rules changed with their next packet.
func (p *Plane) Publish(table *classify.Table) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.table == nil
	p.table = table
	for _, w := range p.workers {
		w.hits.Grow(len(table.Causes()))
	}
	p.dropped.hits.Grow(len(table.Causes()))
	known := make(map[endpoint.ID]uint32)
	for _, e := range table.Endpoints() {
		known[e.ID] = e.Generation
	}
	var changed []endpoint.ID
	for i := range p.slots {
		s, id := &p.slots[i], endpoint.ID(i)
		gen, ok := known[id]
		switch {
		case !s.used:
			continue
		case !ok && s.ready:
			s.ready = false
		case ok && (first || !s.ready || s.ruleGen != gen):
			s.advance()
			s.ready, s.ruleGen = true, gen
		default:
			continue
		}
		changed = append(changed, id)
	}
	// Workers first: once a flow misses in the kernel, they must know better.
	p.refresh()
	if first {
		p.awaitWorkers()
	}
	return p.putSlots(changed)
}

// putSlots tells the kernel of the generations of slots, and of those that it
// could not be told of before.
func (p *Plane) putSlots(ids []endpoint.ID) error {
	for _, id := range ids {
		p.slots[id].untold = true
	}
	var errs []error
	for i := range p.slots {
		if s := &p.slots[i]; s.untold {
			err := p.putEndpoint(uint32(i), s.kernel(&s.ep))
			s.untold = err != nil
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Repair tells the kernel what it could not be told when it was to be, as whatever
// changes generations does. Until then its caches let on what was allowed by rules
// that have changed since; the workers know better.
func (p *Plane) Repair() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.putSlots(nil)
}

// awaitWorkers waits until all workers serve their queues: with new
// generations all flows of an earlier agent miss at once, or links are guarded
// whose pods have talked before, and nothing shall be lost to a worker that is
// about to start. One that can't start must not hold the rules up for long.
func (p *Plane) awaitWorkers() {
	for end := time.Now().Add(p.cfg.HeartbeatTimeout); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !slices.ContainsFunc(p.workers, func(w *worker) bool { return !w.alive.Load() }) {
			return
		}
	}
}

// refresh gives the workers a new snapshot.
func (p *Plane) refresh() {
	snap := &snapshot{table: p.table, host: p.host, services: p.services, released: p.released, local: make([]local, len(p.slots))}
	if p.table != nil {
		snap.generation = p.table.Generation()
	}
	var addrs []addrSlot
	for i := range p.slots {
		s, id := &p.slots[i], endpoint.ID(i)
		if !s.used {
			snap.local[i].born = s.born
			continue
		}
		l := local{born: s.born, learns: s.learns, mac: s.ep.Link.MAC, hostMAC: s.ep.Link.HostMAC, ifindex: s.ep.Link.Ifindex}
		if s.ready && p.table != nil {
			l.gen = s.gen
			l.ingress, l.egress = p.table.Row(id, rule.Ingress), p.table.Row(id, rule.Egress)
		}
		for _, a := range s.ep.Addrs {
			l.own = append(l.own, packet.AddrFrom(a))
			l.answers |= p.answering[packet.AddrFrom(a)]
			addrs = append(addrs, addrSlot{packet.AddrFrom(a), id})
		}
		snap.local[i] = l
		snap.learning = snap.learning || l.learns
	}
	snap.addrs = newAddrTable(p.seed, addrs)
	p.snap.Store(snap)
}

func podAddrs(ep *endpoint.Endpoint) []xdpprog.Addr {
	out := make([]xdpprog.Addr, len(ep.Addrs))
	for i, a := range ep.Addrs {
		out[i] = xdpprog.Addr(packet.AddrFrom(a))
	}
	return out
}

// ownAddrs lists what a pod may speak for in ARP and neighbour discovery: its
// addresses, and its link-local one even if that is not known yet.
func ownAddrs(ep *endpoint.Endpoint) []xdpprog.Addr {
	var out []xdpprog.Addr
	add := func(a netip.Addr) { out = append(out, xdpprog.Addr(packet.AddrFrom(a))) }
	for _, a := range ep.Addrs {
		add(a)
	}
	for _, a := range ep.LinkLocal {
		add(a)
	}
	m := ep.Link.MAC
	add(netip.AddrFrom16([16]byte{ // RFC 4291, appendix A
		0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5],
	}))
	return out
}
