package dataplane

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// What the simulation's ends send to each other, and what the model says of it.

const simPods = 3 // of simEnds; the last is outside

var simEnds = [simPods + 1][2]netip.Addr{
	{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::3")},
	{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")},
	{netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("fd00:1::1")},
	{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")},
}

// simTuple is one direction of a conversation.
type simTuple struct {
	src, dst     int // of simEnds
	sport, dport uint16
	proto        packet.Proto
	v6           bool
}

func (c simTuple) reverse() simTuple {
	return simTuple{c.dst, c.src, c.dport, c.sport, c.proto, c.v6}
}

func (c simTuple) icmp() bool {
	return c.proto == packet.ProtoICMP || c.proto == packet.ProtoICMPv6
}

// echo returns the types of an ICMP echo and its answer.
func (c simTuple) echo() (request, reply uint8) {
	if c.v6 {
		return echoRequest6, echoReply6
	}
	return echoRequest4, echoReply4
}

func (c simTuple) addrs() (src, dst netip.Addr) {
	family := 0
	if c.v6 {
		family = 1
	}
	return simEnds[c.src][family], simEnds[c.dst][family]
}

// tupleOf finds the conversation of a flow that is none with a Service.
func tupleOf(k packet.Key) (c simTuple) {
	c = simTuple{sport: k.APort, dport: k.BPort, proto: k.Proto, v6: !k.A.Is4()}
	for i := range simEnds {
		for _, a := range simEnds[i] {
			if packet.AddrFrom(a) == k.A {
				c.src = i
			}
			if packet.AddrFrom(a) == k.B {
				c.dst = i
			}
		}
	}
	return c
}

// simService is what the host translates to one of some ends. Calls and answers have
// a port of their own, so that conversations with a backend are either by a Service or
// not.
type simService struct {
	proto    packet.Proto
	v6       bool
	backends []int                                // of simEnds
	said     [simPods]struct{ call, answer bool } // ever, to and by whomever
	chosen   [simPods]int                         // for each caller, or noBackend; what the host's conntrack knows
	called   [simPods]bool                        // and whether a call has come there
}

const (
	callPort    = 2000
	servicePort = 80
	backendPort = 81
	noBackend   = -1
)

var simVIPs = [2]netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd96::1")}

func (v *simService) vip() netip.Addr {
	if v.v6 {
		return simVIPs[1]
	}
	return simVIPs[0]
}

// simKind is what is particular about a packet: what it is, has, or is about.
type simKind uint8

const (
	plain   simKind = iota
	options         // of IP, so that divert leaves it to a worker
	first           // fragment
	later           // fragment
	quoting         // an ICMP error, about a packet from dst to src
	// What nobody may send, or get, whatever the rules are.
	spoofed     // with the address of another end
	spoofedMAC  // with the MAC of another pod
	tagged      // with a VLAN
	toItself    // or from there
	mapped      // IPv4 addresses in IPv6
	misdirected // to the MAC of a pod that has another address
	stray       // fragment, without a first one
	misquoting  // about a packet that was not sent by dst or, from a pod, not to it
	simKinds
)

type simPacket struct {
	simTuple
	flags   uint8 // of ICMP its type
	kind    simKind
	id      uint32      // of a fragment's datagram
	quoted  *simPacket  // by an ICMP error
	service *simService // that it calls, or by which it was called
	pretend int         // the end whose address or MAC a forger has
	hook    event.Hook
	uplink  bool // it is there yet
	routed  bool // past the stack
	link    int  // the pod at whose link it is
	rules   []*simRules
}

// calls says whether the packet is to a Service: dst is the backend.
func (p *simPacket) calls() bool { return p.service != nil && p.sport == callPort }

// header is what the packet has for its ends where it is.
func (p *simPacket) header() (src, dst netip.Addr, sport, dport uint16) {
	src, dst = p.addrs()
	sport, dport = p.sport, p.dport
	switch {
	case p.service == nil:
	case p.calls() && p.hook == event.FromPod:
		dst, dport = p.service.vip(), servicePort
	case !p.calls() && p.hook == event.ToPod && !p.uplink:
		src, sport = p.service.vip(), servicePort
	}
	return src, dst, sport, dport
}

// answers says whether the packet may belong to a flow that the other end opened.
func (p *simPacket) answers() bool {
	_, reply := p.echo()
	return !p.icmp() || p.flags == reply
}

// ownPort is what rules see of the packet as the first of a flow, flowPort what they
// saw of the flow that it answers.
func (p *simPacket) ownPort() uint16 {
	if p.icmp() {
		return uint16(p.flags) << 8
	}
	return p.dport
}

// askPort is what rules see of a flow that the packet's sender may have opened.
func (p *simPacket) askPort() uint16 {
	if p.icmp() {
		request, _ := p.echo()
		return uint16(request) << 8
	}
	return p.dport
}

func (p *simPacket) flowPort() uint16 {
	if p.icmp() {
		return p.askPort()
	}
	return p.sport
}

// simRules are all pods' rules: for each and each direction what it allows; nil: all.
type simRules [simPods][2][]simAllow

type simAllow struct {
	peer  int
	proto packet.Proto
	port  uint16
}

// allow says whether a flow may be opened that rules see at a port.
func (r *simRules) allow(c simTuple, port uint16) bool {
	return r.egress(c, port) && r.list(c.dst, rule.Ingress, simAllow{c.src, c.proto, port})
}

func (r *simRules) egress(c simTuple, port uint16) bool {
	return r.list(c.src, rule.Egress, simAllow{c.dst, c.proto, port})
}

func (r *simRules) list(pod int, d rule.Direction, a simAllow) bool {
	return pod >= simPods || r[pod][d] == nil || slices.Contains(r[pod][d], a)
}

var simPorts = []uint16{80, 81, 1000}

// simAllows is what rules may allow of a peer.
var simAllows = func() (list []simAllow) {
	for _, port := range simPorts {
		list = append(list, simAllow{0, packet.ProtoTCP, port}, simAllow{0, packet.ProtoUDP, port})
	}
	for _, t := range []uint16{echoRequest4, echoReply4} {
		list = append(list, simAllow{0, packet.ProtoICMP, t << 8})
	}
	for _, t := range []uint16{echoRequest6, echoReply6} {
		list = append(list, simAllow{0, packet.ProtoICMPv6, t << 8})
	}
	return list
}()

func (s *sim) randomRules() *simRules {
	next := *s.rules
	pod, d := s.IntN(simPods), s.IntN(2)
	if s.IntN(3) == 0 {
		next[pod][d] = nil
		return &next
	}
	list := []simAllow{}
	for peer := range simEnds {
		for _, a := range simAllows {
			if s.IntN(2) == 0 {
				a.peer = peer
				list = append(list, a)
			}
		}
	}
	next[pod][d] = list
	return &next
}

func (s *sim) randomPacket() *simPacket {
	if s.IntN(10) == 0 {
		return s.randomCall()
	}
	src := s.IntN(len(simEnds))
	dst := (src + 1 + s.IntN(len(simEnds)-1)) % len(simEnds)
	p := &simPacket{simTuple: simTuple{src, dst, simPorts[s.IntN(3)], simPorts[s.IntN(3)], packet.ProtoUDP, s.IntN(3) == 0}}
	switch s.IntN(6) {
	case 0:
		p.proto, p.dport = packet.ProtoICMP, p.sport
		if p.v6 {
			p.proto = packet.ProtoICMPv6
		}
		request, reply := p.echo()
		p.flags = []uint8{request, reply}[s.IntN(2)]
	case 1, 2, 3:
		p.proto = packet.ProtoTCP
		p.flags = []uint8{
			packet.TCPSyn, packet.TCPSyn, packet.TCPSyn | packet.TCPAck, packet.TCPAck, packet.TCPAck,
			packet.TCPFin | packet.TCPAck, packet.TCPRst, packet.TCPRst | packet.TCPAck,
		}[s.IntN(8)]
	}
	s.particular(p)
	return p
}

// randomCall is a packet to a Service, or an answer of its backend.
func (s *sim) randomCall() *simPacket {
	v, src := &s.services[s.IntN(len(s.services))], s.IntN(simPods)
	if v.chosen[src] == noBackend {
		v.chosen[src] = v.backends[s.IntN(len(v.backends))]
	}
	p := &simPacket{simTuple: simTuple{src, v.chosen[src], callPort, backendPort, v.proto, v.v6}, service: v, kind: simKind(s.IntN(2))}
	if p.proto == packet.ProtoTCP {
		p.flags = []uint8{packet.TCPSyn, packet.TCPAck, packet.TCPAck, packet.TCPFin | packet.TCPAck, packet.TCPRst}[s.IntN(5)]
	}
	if v.called[src] && s.IntN(2) == 0 {
		p.simTuple = p.reverse()
		if p.flags == packet.TCPSyn {
			p.flags |= packet.TCPAck
		}
	}
	return p
}

// randomBackends gives a Service others; the host forgets whom it chose.
func (s *sim) randomBackends(v *simService) {
	v.backends = s.Perm(len(simEnds))[:1+s.IntN(len(simEnds))]
	v.called = [simPods]bool{}
	for i := range v.chosen {
		v.chosen[i] = noBackend
	}
}

// particular makes some packets other than plain.
func (s *sim) particular(p *simPacket) {
	const ordinary = 16
	p.kind = simKind(max(0, s.IntN(ordinary+int(simKinds))-ordinary))
	p.pretend = (p.src + 1 + s.IntN(len(simEnds)-1)) % len(simEnds)
	switch p.kind {
	case first, later, stray:
		if p.kind == later {
			p.kind = first // its own follow it
		}
		s.datagrams++
		p.id = s.datagrams
	case spoofedMAC:
		p.pretend %= simPods
		if p.src >= simPods || p.pretend == p.src {
			p.kind = plain
		}
	case mapped:
		p.v6 = false // what it would be taken for
		if p.proto == packet.ProtoICMPv6 {
			p.kind = plain
			p.v6 = true
		}
	case misdirected:
		if p.src < simPods {
			p.kind = plain
		}
	case quoting, misquoting:
		s.quote(p)
	}
}

// quote makes a packet an ICMP error about one that was sent, by its receiver, or by
// a router outside.
func (s *sim) quote(p *simPacket) {
	if len(s.recent) == 0 {
		p.kind = plain
		return
	}
	q := s.recent[s.IntN(len(s.recent))]
	p.quoted = q
	p.simTuple, p.flags = q.reverse(), 0
	if s.IntN(3) == 0 {
		p.src = simPods
	}
	if p.kind == misquoting {
		others := func(i int) int { return (i + 1 + s.IntN(simPods-1)) % simPods }
		if s.IntN(2) == 0 && q.dst < simPods {
			p.src = others(q.dst) // not about anything that it got
		} else {
			p.dst = others(min(q.src, simPods-1))
		}
	}
	if p.src == p.dst {
		p.kind = plain
		p.simTuple, p.flags, p.quoted = q.simTuple, q.flags, nil
	}
}

// mustService says whether nothing may stop a packet in the conversation that its pod
// has with a Service. All who may be chosen have a say in it; and to rules that isolate
// the pod the Service is nobody.
func (s *sim) mustService(p *simPacket, r *simRules) bool {
	call := p.simTuple
	if !p.calls() {
		call = p.reverse()
	}
	all := !slices.ContainsFunc(p.service.backends, func(to int) bool {
		each := call
		each.dst = to
		return to != call.src && !r.egress(each, backendPort)
	})
	said, open := p.service.said[call.src], r[call.src][rule.Ingress] == nil
	if p.calls() {
		return all && (open || !said.answer)
	}
	return open && (all || !said.call)
}

// hostile packets pass nowhere.
func (p *simPacket) hostile() bool { return p.kind >= spoofed }

// may says whether rules let the packet pass, and must whether nothing else may stop it.
func (s *sim) may(p *simPacket, r *simRules) (may, must bool) {
	c := p
	if p.kind == quoting {
		c = p.quoted
	}
	// It may belong to a flow that the other end has opened. Of one that was cut
	// nothing passes, though rules would allow it as a flow of its own.
	asked := s.sent[c.reverse()]
	own, ask := r.allow(c.simTuple, c.ownPort()), r.allow(c.simTuple, c.askPort())
	reply := asked && c.answers() && r.allow(c.reverse(), c.flowPort())
	switch {
	case p.hostile():
		return false, false
	case p.kind == quoting:
		// Either end may have opened it.
		return s.sent[c.simTuple] && (own || ask) || asked && r.allow(c.reverse(), c.flowPort()), false
	case p.service != nil:
		return own || reply, own && ask && (reply || !asked) && s.mustService(p, r)
	case p.kind == later:
		return own || reply, false // its first may have been forgotten
	}
	return own || reply, own && ask && (reply || !asked)
}
