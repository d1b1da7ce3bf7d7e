package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/dataplane/xsk"
	"github.com/sluice-net/sluice/xdpprog"
)

// The simulation plays pods and an address outside that send at random on few
// tuples, so that flows are opened, answered, closed, reset and opened again from
// either end, while rules change, pods move to other links, notes are late and flows
// expire. Packets take the way of a node: through divert, which is the real program
// on the real maps, and where that says so through the worker. What must hold is
// said by a model that knows rules and who sent what, and nothing of flows.

const simPods = 3 // of simEnds; the last is outside

var simEnds = [simPods + 1]netip.Addr{
	netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("192.0.2.7"),
}

// simTuple is one direction of a conversation.
type simTuple struct {
	src, dst     int // of simEnds
	sport, dport uint16
	proto        packet.Proto
}

func (c simTuple) reverse() simTuple {
	return simTuple{c.dst, c.src, c.dport, c.sport, c.proto}
}

// The flags of an ICMP packet are its type.
func (p *simPacket) answers() bool {
	return p.proto != packet.ProtoICMP || p.flags == echoReply4
}

// ownPort is what rules see of the packet as the first of a flow, flowPort what they
// saw of the flow that it answers.
func (p *simPacket) ownPort() uint16 {
	if p.proto == packet.ProtoICMP {
		return uint16(p.flags) << 8
	}
	return p.dport
}

// askPort is what rules see of a flow that the packet's sender may have opened.
func (p *simPacket) askPort() uint16 {
	if p.proto == packet.ProtoICMP {
		return echoRequest4 << 8
	}
	return p.dport
}

func (p *simPacket) flowPort() uint16 {
	if p.proto == packet.ProtoICMP {
		return echoRequest4 << 8
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
	one := func(pod int, d rule.Direction, peer int) bool {
		if pod >= simPods || r[pod][d] == nil {
			return true
		}
		for _, a := range r[pod][d] {
			if a == (simAllow{peer, c.proto, port}) {
				return true
			}
		}
		return false
	}
	return one(c.src, rule.Egress, c.dst) && one(c.dst, rule.Ingress, c.src)
}

type simPacket struct {
	simTuple
	flags uint8
	hook  event.Hook
	rules []*simRules // of the time since it was sent
}

type sim struct {
	*testing.T
	*rand.Rand
	cfg    Config
	plane  *Plane
	w      *testWorker
	socket int
	divert,
	toPod *ebpf.Program
	notes      *xdpprog.Notes
	generation uint64
	rules      *simRules
	gens       [simPods]uint32
	pods       [simPods]endpoint.Endpoint
	spare      []int // links
	sent       map[simTuple]bool
	queue      []*simPacket
	frames     [][]byte // as divert sent them up
	under      []*simPacket
	log        []string
	passed,
	dropped int
}

func (s *sim) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *sim) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

func newSim(t *testing.T, seed uint64, change func(*Config)) *sim {
	cfg := testConfig(t)
	ownNamespace(t)
	cfg.Clsact, cfg.HeartbeatTimeout, cfg.MissRate = true, time.Hour, 0
	cfg.FlowCache, cfg.Flow.Capacity = 256, 256
	change(&cfg)
	s := &sim{T: t, Rand: rand.New(rand.NewPCG(seed, 0)), sent: map[simTuple]bool{}, rules: &simRules{}}
	for i := range 2 * simPods {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Index = fmt.Sprint("pod", i), 300+i
		s.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprint("peer", i)}))
		s.spare = append(s.spare, attrs.Index)
	}
	s.cfg = cfg
	s.start()
	t.Cleanup(func() { s.end() })
	for i := range s.pods {
		s.plug(i)
	}
	s.publish(&simRules{})
	return s
}

// start loads the dataplane, without the loop of its worker.
func (s *sim) start() {
	s.Helper()
	s.plane = openPlane(s.T, s.cfg, &heldFilters{})
	w := s.plane.workers[0]
	w.alive.Store(true)
	s.w = &testWorker{worker: w, t: s.T}
	var err error
	w.umem, err = xsk.NewUMEM(xsk.UMEMConfig{Frames: 1024, FrameSize: 2048})
	s.must(err)
	objs := s.plane.objs
	s.socket = unboundSocket(s.T)
	s.must(objs.SetPort(0, 300))
	s.must(objs.SetSocket(0, s.socket))
	for point, prog := range map[xdpprog.Point]**ebpf.Program{xdpprog.PodIngress: &s.divert, xdpprog.PodEgress: &s.toPod} {
		own, err := unix.FcntlInt(uintptr(objs.FilterFD(point)), unix.F_DUPFD_CLOEXEC, 0)
		s.must(err)
		*prog, err = ebpf.NewProgramFromFD(own)
		s.must(err)
	}
	s.notes, err = objs.Notes()
	s.must(err)
	w.tick()
}

// end is the agent's, whatever it was doing.
func (s *sim) end() {
	s.Helper()
	s.must(errors.Join(s.notes.Close(), s.divert.Close(), s.toPod.Close(), s.w.umem.Close(), unix.Close(s.socket), s.plane.Close()))
	s.frames, s.under = nil, nil
}

// restart has a successor adopt what is in the kernel.
func (s *sim) restart() {
	s.Helper()
	s.end()
	s.start()
	for i := range s.pods {
		var adopted bool
		var err error
		if s.pods[i].ID, adopted, err = s.plane.Bind(s.pods[i]); err != nil || !adopted {
			s.Fatalf("pod %d: adopted %t, %v", i, adopted, err)
		}
	}
	s.publish(s.rules)
}

// plug gives a pod another link than it had.
func (s *sim) plug(i int) {
	s.Helper()
	at := s.IntN(len(s.spare))
	link := s.spare[at]
	if was := s.pods[i].Link.Ifindex; was != 0 {
		s.must(s.plane.Detach(s.pods[i].ID))
		s.spare[at] = was
	} else {
		s.spare = append(s.spare[:at], s.spare[at+1:]...)
	}
	ep := endpoint.Endpoint{
		Namespace: "x", Name: fmt.Sprint("pod", i), UID: fmt.Sprint(i, " on ", link), Addrs: []netip.Addr{simEnds[i]},
		Link: endpoint.Link{Ifindex: link, Name: fmt.Sprint("pod", link-300), MAC: endpoint.MAC{2, 0, 0, 0, 0, byte(link)}, HostMAC: endpoint.MAC{2, 0, 0, 0, 1, byte(link)}},
	}
	var err error
	ep.ID, _, err = s.plane.Bind(ep)
	s.must(err)
	s.pods[i] = ep
	s.gens[i]++
	for snap := s.plane.snap.Load(); s.w.purged != snap.released; {
		s.w.purge(snap)
	}
	// It is another pod, which has opened nothing yet.
	maps.DeleteFunc(s.sent, func(c simTuple, _ bool) bool { return c.src == i })
}

// publish puts rules in force; packets may be on their way to the worker.
func (s *sim) publish(rules *simRules) {
	s.Helper()
	s.generation++
	set := &rule.Set{Generation: s.generation, Peers: len(simEnds), Programs: []rule.Program{{}}, Causes: make([]rule.Cause, 2)}
	for i, a := range simEnds {
		set.Identities = append(set.Identities, rule.Identity{rule.PeerID(i)})
		set.Addresses = append(set.Addresses, rule.Address{Addr: a, Identity: uint32(i)})
	}
	for i := range s.pods {
		var programs [2]rule.ProgramID
		for d, list := range rules[i] {
			if list == nil {
				continue
			}
			tier := rule.Tier{Name: "t", Default: rule.Deny, DefaultCause: 1}
			for _, a := range list {
				tier.Rules = append(tier.Rules, rule.Rule{Action: rule.Allow, Peers: []rule.PeerID{rule.PeerID(a.peer)},
					Ports: []rule.PortRange{{Proto: uint8(a.proto), From: a.port, To: a.port}}, Cause: 1})
			}
			programs[d] = rule.ProgramID(len(set.Programs))
			set.Programs = append(set.Programs, rule.Program{Tiers: []rule.Tier{tier}})
		}
		if fmt.Sprint(rules[i]) != fmt.Sprint(s.rules[i]) {
			s.gens[i]++
		}
		e := rule.Endpoint{ID: s.pods[i].ID, Ingress: programs[rule.Ingress], Egress: programs[rule.Egress], Generation: max(s.gens[i], 1)}
		set.Endpoints = append(set.Endpoints, e)
	}
	slices.SortFunc(set.Endpoints, func(a, b rule.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	table, err := classify.Build(set)
	s.must(err)
	s.rules = rules
	for _, p := range slices.Concat(s.under, s.queue) {
		p.rules = append(p.rules, rules)
	}
	s.must(s.plane.Publish(table))
}

var simPorts = []uint16{80, 81, 1000}

func (s *sim) randomRules() *simRules {
	next := *s.rules
	pod, d := s.IntN(simPods), s.IntN(2)
	if s.IntN(3) == 0 {
		next[pod][d] = nil
		return &next
	}
	list := []simAllow{}
	for peer := range simEnds {
		for proto, ports := range map[packet.Proto][]uint16{packet.ProtoTCP: simPorts, packet.ProtoUDP: simPorts, packet.ProtoICMP: {echoRequest4 << 8, echoReply4 << 8}} {
			for _, port := range ports {
				if s.IntN(2) == 0 {
					list = append(list, simAllow{peer, proto, port})
				}
			}
		}
	}
	next[pod][d] = list
	return &next
}

func (s *sim) randomPacket() *simPacket {
	src := s.IntN(len(simEnds))
	dst := (src + 1 + s.IntN(len(simEnds)-1)) % len(simEnds)
	p := &simPacket{simTuple: simTuple{src, dst, simPorts[s.IntN(3)], simPorts[s.IntN(3)], packet.ProtoUDP}}
	switch s.IntN(6) {
	case 0:
		p.proto, p.dport, p.flags = packet.ProtoICMP, p.sport, []uint8{echoRequest4, echoReply4}[s.IntN(2)]
	case 1, 2, 3:
		p.proto = packet.ProtoTCP
		p.flags = []uint8{
			packet.TCPSyn, packet.TCPSyn, packet.TCPSyn | packet.TCPAck, packet.TCPAck, packet.TCPAck,
			packet.TCPFin | packet.TCPAck, packet.TCPRst, packet.TCPRst | packet.TCPAck,
		}[s.IntN(8)]
	}
	return p
}

// frame builds a packet as it is at a pod's link.
func (s *sim) frame(p *simPacket) []byte {
	s.Helper()
	src, dst := simEnds[p.src], simEnds[p.dst]
	pod := &s.pods[p.at()]
	from, to := pod.Link.MAC, pod.Link.HostMAC
	if p.hook == event.ToPod {
		from, to = to, from
	}
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr(from[:]), DstMAC: net.HardwareAddr(to[:]), EthernetType: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocol(p.proto), SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	var l4 gopacket.SerializableLayer
	switch p.proto {
	case packet.ProtoUDP:
		u := &layers.UDP{SrcPort: layers.UDPPort(p.sport), DstPort: layers.UDPPort(p.dport)}
		s.must(u.SetNetworkLayerForChecksum(ip))
		l4 = u
	case packet.ProtoICMP:
		l4 = &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(p.flags, 0), Id: p.sport}
	default:
		tcp := &layers.TCP{SrcPort: layers.TCPPort(p.sport), DstPort: layers.TCPPort(p.dport), Window: 1000,
			SYN: p.flags&packet.TCPSyn != 0, ACK: p.flags&packet.TCPAck != 0, FIN: p.flags&packet.TCPFin != 0, RST: p.flags&packet.TCPRst != 0}
		s.must(tcp.SetNetworkLayerForChecksum(ip))
		l4 = tcp
	}
	buf := gopacket.NewSerializeBuffer()
	s.must(gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, l4, gopacket.Payload("payload")))
	return buf.Bytes()
}

// at is the pod at whose link the packet is.
func (p *simPacket) at() int {
	if p.hook == event.FromPod {
		return p.src
	}
	return p.dst
}

// send has an end send a packet.
func (s *sim) send(p *simPacket) {
	s.Helper()
	p.rules = []*simRules{s.rules}
	s.sent[p.simTuple] = true
	s.note("send %+v flags %#x", p.simTuple, p.flags)
	p.hook = event.FromPod
	if p.src >= simPods {
		p.hook = event.ToPod
	}
	s.arrive(p)
}

const (
	tcRedirect = 7          // TC_ACT_REDIRECT
	tcNext     = ^uint32(0) // TCX_NEXT
)

// arrive has divert see a packet where it is.
func (s *sim) arrive(p *simPacket) {
	s.Helper()
	prog := s.divert
	if p.hook == event.ToPod {
		prog = s.toPod
	}
	// struct __sk_buff, as far as it is of interest (include/uapi/linux/bpf.h).
	skb := struct {
		_       [10]uint32
		Ifindex uint32
	}{Ifindex: uint32(s.pods[p.at()].Link.Ifindex)}
	frame := s.frame(p)
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Repeat: 1, Context: skb}
	s.plane.objs.Beat(0, nowMono(s.T))
	verdict, err := prog.Run(opts)
	s.must(err)
	switch {
	case verdict == tcNext:
		s.next(p)
	case verdict == tcRedirect && opts.DataOut[0]&^1 == 0x40:
		s.note("  up at hook %d", p.hook)
		s.frames, s.under = append(s.frames, opts.DataOut), append(s.under, p)
	case verdict == tcRedirect:
		s.done(p, true)
	default:
		s.done(p, false)
	}
}

func nowMono(t *testing.T) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano()
}

// next takes a packet through the host's stack.
func (s *sim) next(p *simPacket) {
	s.Helper()
	if p.hook == event.FromPod && p.dst < simPods {
		p.hook = event.ToPod
		s.queue = append(s.queue, p)
		return
	}
	s.done(p, true)
}

// burst has the worker take what it has been sent.
func (s *sim) burst() {
	s.Helper()
	frames, list := s.frames, s.under
	s.frames, s.under = nil, nil
	if len(frames) == 0 {
		return
	}
	s.w.tick()
	s.w.put(frames...)
	s.w.process(s.plane.snap.Load())
	for i, p := range list {
		switch b := &s.w.b.pkts[i]; b.verb {
		case verbDrop:
			s.note("  dropped by the worker: %v, %+v", b.reason, p.simTuple)
			if b.reason != stat.FlowTableFull {
				s.done(p, false)
			}
		case verbShortcut:
			s.done(p, true)
		case verbResume:
			s.next(p)
		default:
			s.Fatalf("verb %d", b.verb)
		}
	}
}

// done compares what became of a packet with what the model says.
func (s *sim) done(p *simPacket, passed bool) {
	s.Helper()
	s.note("  %+v passed %t", p.simTuple, passed)
	// It may belong to a flow that the other end has opened. Of one that was cut
	// nothing passes, though rules would allow it as a flow of its own.
	may, must, asked := false, true, s.sent[p.reverse()]
	for _, r := range p.rules {
		own, reply := r.allow(p.simTuple, p.ownPort()), asked && p.answers() && r.allow(p.reverse(), p.flowPort())
		may = may || own || reply
		must = must && own && (reply || !asked) && r.allow(p.simTuple, p.askPort())
	}
	if passed {
		s.passed++
	} else {
		s.dropped++
	}
	if passed && !may || !passed && must {
		for _, line := range s.log[max(0, len(s.log)-60):] {
			s.Log(line)
		}
		s.Fatalf("%+v, flags %#x: passed %t; it may %t, must %t", p.simTuple, p.flags, passed, may, must)
	}
}

// read has the worker read notes.
func (s *sim) read() {
	s.Helper()
	list := make([]xdpprog.Note, 256)
	n, err := s.notes.Read(list, 0)
	s.must(err)
	for i := range list[:n] {
		if list[i].Kind == xdpprog.NoteStart {
			s.w.started(&list[i])
		} else {
			s.w.ended(&list[i])
		}
	}
	s.w.offload.flush(s.w.worker)
}

// check compares the worker's table with the kernel's cache.
func (s *sim) check() {
	s.Helper()
	seen := map[packet.Key]bool{}
	for at, more := 0, true; more; {
		more = s.w.flows.Scan(&at, 1<<20, func(e *flow.Entry) {
			if seen[e.Key] {
				s.Errorf("two entries of %+v", e.Key)
			}
			seen[e.Key] = true
			if e.Flags&flow.Offloaded != 0 && !s.w.holds(e.Key) {
				s.Errorf("%+v, %v, is not in the cache, as its entry says", e.Key, e.State)
			}
		})
	}
	s.must(s.plane.objs.EachFlow(func(k *xdpprog.FlowKey, v *xdpprog.FlowValue) {
		key := keyFrom(k)
		ref := s.w.flows.Find(&key)
		if ref == flow.NoRef || s.w.flows.At(ref).Flags&flow.Offloaded == 0 {
			s.Errorf("%+v is in the cache and nobody's", *k)
		}
	}))
	if s.Failed() {
		for _, line := range s.log[max(0, len(s.log)-80):] {
			s.Log(line)
		}
		s.FailNow()
	}
}

func (s *sim) settle() {
	s.Helper()
	for len(s.queue) > 0 || len(s.frames) > 0 {
		for len(s.queue) > 0 && len(s.frames) < burstSize {
			p := s.queue[0]
			s.queue = s.queue[1:]
			s.arrive(p)
		}
		s.burst()
	}
	s.read()
}

func (s *sim) run(steps int) {
	s.Helper()
	for step := range steps {
		switch r := s.IntN(1000); {
		case r < 700 && len(s.frames) < burstSize:
			s.send(s.randomPacket())
		case r < 800 && len(s.queue) > 0 && len(s.frames) < burstSize:
			p := s.queue[0]
			s.queue = s.queue[1:]
			s.arrive(p)
		case r < 900:
			s.burst()
		case r < 950:
			s.read()
		case r < 975:
			s.note("rules")
			s.publish(s.randomRules())
		case r < 985:
			s.note("sweep")
			s.w.tick()
			s.w.sweep()
		case r < 988:
			// What is on its way meanwhile meets links that are nobody's.
			s.settle()
			pod := s.IntN(simPods)
			s.note("pod %d moves", pod)
			s.plug(pod)
			s.publish(s.rules)
		case r < 990:
			s.note("restart")
			s.restart()
		case step%50 == 0:
			s.settle()
			s.check()
		}
	}
	s.settle()
	s.check()
}

func TestSimulation(t *testing.T) {
	const steps = 6000
	for name, change := range map[string]func(*Config){
		"shortcut":    func(*Config) {},
		"no shortcut": func(c *Config) { c.Shortcut = false },
		"inspect":     func(c *Config) { c.Offload = false },
		"brief flows": func(c *Config) {
			const brief = int64(20 * time.Millisecond)
			c.Flow.Timeouts = flow.Timeouts{TCPSynNs: brief, TCPLooseNs: brief, TCPEstablishedNs: brief, TCPFinWaitNs: brief,
				TCPClosedNs: brief, UDPNs: brief, UDPStreamNs: brief, ICMPNs: brief, OtherNs: brief}
		},
		"small cache": func(c *Config) { c.FlowCache = 64 },
		"small table": func(c *Config) { c.Flow.Capacity = 16 },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range simSeeds() {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					s := newSim(t, seed, change)
					s.run(steps)
					if s.passed < steps/10 || s.dropped < steps/10 {
						t.Errorf("%d packets passed, %d were dropped", s.passed, s.dropped)
					}
					t.Logf("%d packets passed, %d were dropped", s.passed, s.dropped)
				})
			}
		})
	}
}

// simSeeds is how many seeds each configuration is played with: SIM_SEEDS, or a few.
func simSeeds() uint64 {
	n, err := strconv.ParseUint(os.Getenv("SIM_SEEDS"), 10, 64)
	if err != nil {
		return 2
	}
	return n
}
