package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/xsk"
	"github.com/sluice-net/sluice/xdpprog"
)

// The simulation plays pods and an address outside that send at random on few
// tuples, so that flows are opened, answered, closed, reset and opened again from
// either end, while rules change, pods move to other links, notes are late and flows
// expire. Packets take the way of a node: through uplink_steer and divert, which are
// the real programs on the real maps, and where those say so through a worker. What
// must hold is said by a model that knows rules and who sent what, and nothing of flows;
// and a frame that goes on is the one that was sent.

type sim struct {
	*testing.T
	*rand.Rand
	cfg                                     Config
	plane                                   *Plane
	ports                                   []simRing        // of the workers
	queues                                  []simRing        // of the uplink
	heard                                   [simPods]simRing // their own links, without offload
	sockets                                 []int
	divert, toPod, steer, steerPod, deliver *ebpf.Program
	notes                                   *xdpprog.Notes
	told                                    [][]xdpprog.Note // to each worker, and not read yet
	generation                              uint64
	rules                                   *simRules
	gens                                    [simPods]uint32
	pods                                    [simPods]endpoint.Endpoint
	spare                                   []int // links
	sent                                    map[simTuple]bool
	services                                [4]simService
	recent                                  []*simPacket // the last ones of these
	datagrams                               uint32       // that were fragmented
	queue                                   []*simPacket // on their way, but not to a worker
	log                                     []string
	outcomes                                [simKinds][2]int // dropped, passed
}

// simQueues is how many the uplink has: which one a packet comes by has nothing to do
// with the worker that owns its flow.
const simQueues = 2

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
	s := &sim{T: t, Rand: rand.New(rand.NewPCG(seed, 0)), sent: map[simTuple]bool{}, rules: &simRules{}}
	// Each configuration is played with two workers and one, and with an uplink more often
	// than without.
	cfg.Workers = 2 - int(seed%2)
	if seed%3 < 2 {
		cfg.Uplinks = []string{"uplink"}
	}
	change(&cfg)
	s.note("%d workers, uplinks %v", cfg.Workers, cfg.Uplinks)
	s.addLink("uplink", simUplink, simQueues)
	for i := range 2 * simPods {
		s.addLink(fmt.Sprint("pod", i), 300+i, 1)
		s.spare = append(s.spare, 300+i)
	}
	for i := range s.services {
		s.services[i].proto, s.services[i].v6 = []packet.Proto{packet.ProtoTCP, packet.ProtoUDP}[i/2], i%2 == 1
		s.randomBackends(&s.services[i])
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

func (s *sim) addLink(name string, ifindex, queues int) {
	s.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index, attrs.NumRxQueues, attrs.NumTxQueues = name, ifindex, queues, queues
	s.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "peer"}))
}

// start loads the dataplane, without the loops of its workers.
func (s *sim) start() {
	s.Helper()
	s.plane = openPlane(s.T, s.cfg, &heldFilters{})
	objs := s.plane.objs
	s.ports, s.queues, s.sockets, s.heard = nil, nil, nil, [simPods]simRing{}
	s.told = make([][]xdpprog.Note, s.cfg.Workers)
	for i, w := range s.plane.workers {
		w.alive.Store(true)
		var err error
		w.umem, err = xsk.NewUMEM(xsk.UMEMConfig{Frames: 1024, FrameSize: 2048})
		s.must(err)
		w.tick()
		s.must(objs.SetPort(i, 300))
		s.must(objs.SetSocket(i, s.socket()))
		s.ports = append(s.ports, simRing{testWorker: &testWorker{worker: w, t: s.T}})
	}
	if len(s.cfg.Uplinks) > 0 {
		for i := range simQueues {
			at := i % s.cfg.Workers
			s.must(objs.SetUplinkSocket(i, s.socket()))
			q := &uplinkQueue{nic: NIC{Ifindex: simUplink, MAC: simUplinkMAC}, queue: i, at: i, worker: at}
			s.queues = append(s.queues, simRing{testWorker: s.ports[at].testWorker, from: q})
		}
		s.must(objs.NoteAsked())
		s.must(objs.PutUplink(simUplink, xdpprog.Uplink{Queues: simQueues, Room: 1500, MAC: simUplinkMAC}))
	}
	for point, prog := range map[xdpprog.Point]**ebpf.Program{xdpprog.PodIngress: &s.divert, xdpprog.PodEgress: &s.toPod, xdpprog.UplinkXDP: &s.steer, xdpprog.PodXDP: &s.steerPod, xdpprog.PortIngress: &s.deliver} {
		own, err := unix.FcntlInt(uintptr(objs.FilterFD(point)), unix.F_DUPFD_CLOEXEC, 0)
		s.must(err)
		*prog, err = ebpf.NewProgramFromFD(own)
		s.must(err)
	}
	var err error
	s.notes, err = objs.Notes()
	s.must(err)
	s.serve()
}

func (s *sim) socket() (fd int) {
	fd = unboundSocket(s.T)
	s.sockets = append(s.sockets, fd)
	return fd
}

// hear has a pod's worker hear it on its own link.
func (s *sim) hear(i int) {
	s.Helper()
	slot := s.pods[i].ID
	s.must(s.plane.objs.SetPodSocket(uint32(slot), s.socket()))
	s.heard[i] = simRing{testWorker: s.ports[int(slot)%s.cfg.Workers].testWorker, bare: true}
}

// serve tells of the Services.
func (s *sim) serve() {
	s.Helper()
	var list []Service
	for i := range s.services {
		v := &s.services[i]
		one := Service{Addr: v.vip(), Proto: v.proto, Port: servicePort}
		for _, end := range v.backends {
			_, a := simTuple{dst: end, v6: v.v6}.addrs()
			one.Backends = append(one.Backends, netip.AddrPortFrom(a, backendPort))
		}
		list = append(list, one)
	}
	s.must(s.plane.SetHost([]netip.Addr{node}, list))
}

// end is the agent's, whatever it was doing.
func (s *sim) end() {
	s.Helper()
	s.must(errors.Join(s.notes.Close(), s.divert.Close(), s.toPod.Close(), s.steer.Close(), s.steerPod.Close(), s.deliver.Close(), s.plane.Close()))
	for i := range s.ports {
		s.must(s.ports[i].umem.Close())
	}
	for _, fd := range s.sockets {
		s.must(unix.Close(fd))
	}
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
		s.hear(i)
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
		Namespace: "x", Name: fmt.Sprint("pod", i), UID: fmt.Sprint(i, " on ", link), Addrs: simEnds[i][:],
		Link: endpoint.Link{Ifindex: link, Name: fmt.Sprint("pod", link-300), MAC: endpoint.MAC{2, 0, 0, 0, 0, byte(link)}, HostMAC: endpoint.MAC{2, 0, 0, 0, 1, byte(link)}},
	}
	var err error
	ep.ID, _, err = s.plane.Bind(ep)
	s.must(err)
	s.pods[i] = ep
	s.hear(i)
	s.gens[i]++
	snap := s.plane.snap.Load()
	for _, w := range s.plane.workers {
		for w.purged != snap.released {
			w.purge(snap)
		}
	}
	// It is another pod, which has opened nothing yet, and to which nobody has.
	maps.DeleteFunc(s.sent, func(c simTuple, _ bool) bool { return c.src == i || c.dst == i })
	s.recent = nil
	for v := range s.services {
		for caller, to := range s.services[v].chosen {
			if caller == i || to == i {
				s.services[v].chosen[caller], s.services[v].called[caller] = noBackend, false
			}
		}
	}
}

// publish puts rules in force; packets may be on their way to the worker.
func (s *sim) publish(rules *simRules) {
	s.Helper()
	s.generation++
	set := &rule.Set{Generation: s.generation, Peers: len(simEnds), Programs: []rule.Program{{}}, Causes: make([]rule.Cause, 2)}
	for i, both := range simEnds {
		set.Identities = append(set.Identities, rule.Identity{rule.PeerID(i)})
		for _, a := range both {
			set.Addresses = append(set.Addresses, rule.Address{Addr: a, Identity: uint32(i)})
		}
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
	for _, p := range s.underWay() {
		p.rules = append(p.rules, rules)
	}
	s.must(s.plane.Publish(table))
}

// rings are those of all workers.
func (s *sim) rings() (list []*simRing) {
	for _, rings := range [][]simRing{s.ports, s.queues, s.heard[:]} {
		for i := range rings {
			list = append(list, &rings[i])
		}
	}
	return list
}

// underWay lists the packets of which nobody knows yet whether they pass.
func (s *sim) underWay() []*simPacket {
	list := slices.Clone(s.queue)
	for _, r := range s.rings() {
		list = append(list, r.under...)
	}
	return list
}

// read has notes handed to the workers, and one of them read its own.
func (s *sim) read(worker int) {
	s.Helper()
	list := make([]xdpprog.Note, 256)
	n, err := s.notes.Read(list, 0)
	s.must(err)
	for _, note := range list[:n] {
		s.told[note.Worker] = append(s.told[note.Worker], note)
	}
	w := s.ports[worker].worker
	for i := range s.told[worker] {
		if note := &s.told[worker][i]; note.Kind == xdpprog.NoteStart {
			w.started(note)
		} else {
			w.ended(note)
		}
	}
	s.told[worker] = nil
	w.offload.flush(w)
}

// check compares the workers' tables with the kernel's cache.
func (s *sim) check() {
	s.Helper()
	seen := map[packet.Key]bool{}
	var fault simTuple
	wrong := func(k packet.Key, what string) {
		s.Errorf("%+v: %s", k, what)
		fault = tupleOf(k)
	}
	for i := range s.ports {
		w := s.ports[i]
		for at, more := 0, true; more; {
			more = w.flows.Scan(&at, 1<<20, func(e *flow.Entry) {
				if seen[e.Key] {
					wrong(e.Key, "two entries")
				}
				seen[e.Key] = true
				if !w.owns(&e.Key) {
					wrong(e.Key, "another worker's")
				}
				if e.Flags&flow.Offloaded != 0 && !w.holds(e.Key) {
					wrong(e.Key, fmt.Sprintf("not in the cache, as its entry says: %+v", *e))
				}
			})
		}
	}
	s.must(s.plane.objs.EachFlow(func(k *xdpprog.FlowKey, v *xdpprog.FlowValue) {
		key, w := keyFrom(k), s.plane.owner(k)
		ref := w.flows.Find(&key)
		if ref == flow.NoRef || w.flows.At(ref).Flags&flow.Offloaded == 0 {
			wrong(key, "in the cache, and nobody's")
		}
	}))
	if s.Failed() {
		s.showLog(fault)
		s.FailNow()
	}
}

// goOn has the packet arrive that has waited longest for that.
func (s *sim) goOn() {
	s.Helper()
	if len(s.queue) > 0 {
		p := s.queue[0]
		s.queue = s.queue[1:]
		s.arrive(p)
	}
}

func (s *sim) settle() {
	s.Helper()
	for len(s.underWay()) > 0 {
		for len(s.queue) > 0 {
			s.goOn()
		}
		for _, r := range s.rings() {
			s.burst(r)
		}
	}
	for i := range s.ports {
		s.read(i)
	}
}

func (s *sim) run(steps int) {
	s.Helper()
	for step := range steps {
		switch r := s.IntN(1000); {
		case r < 450:
			s.send(s.randomPacket())
		case r < 750:
			s.goOn()
		case r < 900:
			rings := s.rings()
			s.burst(rings[s.IntN(len(rings))])
		case r < 950:
			s.read(s.IntN(len(s.ports)))
		case r < 975:
			s.note("rules")
			s.publish(s.randomRules())
		case r < 985:
			s.note("sweep")
			w := s.ports[s.IntN(len(s.ports))]
			w.tick()
			w.sweep()
		case r < 988:
			// What is on its way meanwhile meets links that are nobody's.
			s.settle()
			pod := s.IntN(simPods)
			s.note("pod %d moves", pod)
			s.plug(pod)
			s.publish(s.rules)
		case r < 989:
			s.note("restart")
			s.restart()
		case r < 992:
			s.settle()
			s.randomBackends(&s.services[s.IntN(len(s.services))])
			s.note("services")
			s.serve()
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
					if o := s.outcomes[plain]; o[0] < steps/20 || o[1] < steps/20 {
						t.Errorf("of plain packets %d were dropped, %d passed", o[0], o[1])
					}
					t.Logf("dropped and passed, by kind: %v", s.outcomes)
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
