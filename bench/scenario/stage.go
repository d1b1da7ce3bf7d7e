package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/bench/traffic"
)

// Stage is the node of one measurement: two pods, routed, one cable each.
type Stage struct {
	Net      *netlab.Net
	A, B     *netlab.Pod // traffic goes from A to B
	Workload *Workload
	Running  Running

	enforces bool   // the system has rules
	blind    bool   // the system carries nothing to pod B
	limit    string // what held the system back, if the workload knows
	cable    *Cable // in place of a node
	pcap     string // file to replay

	congestion string // control of the pods' TCP

	self string // binary that has the agent and the peers in it
	dir  string // for files of the system
	log  *os.File
}

var (
	addrsA = []netip.Addr{netip.MustParseAddr("10.244.0.2"), netip.MustParseAddr("fd00:10:244::2")}
	addrsB = []netip.Addr{netip.MustParseAddr("10.244.0.3"), netip.MustParseAddr("fd00:10:244::3")}
)

// servicePort is where the servers of all workloads listen.
const servicePort = 2049

func newStage(name, self string, w *Workload, cable *Cable, congestion string) (_ *Stage, err error) {
	dir := stageDir(name)
	s := &Stage{Workload: w, self: self, dir: dir, congestion: congestion}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of the stage: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.log, err = os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	if cable != nil {
		s.cable = cable
		return s, nil
	}
	cfg := netlab.Default(name)
	if w.MTU > 0 {
		cfg.MTU = w.MTU
	}
	if s.Net, err = netlab.New(cfg); err != nil {
		return nil, err
	}
	if s.A, err = s.Net.AddPod("bench/a", addrsA); err != nil {
		return nil, err
	}
	if s.B, err = s.Net.AddPod("bench/b", addrsB); err != nil {
		return nil, err
	}
	for i := range w.Pods {
		if _, err := s.Net.AddPod(fmt.Sprintf("bench/other-%03d", i), []netip.Addr{otherAddr(i)}); err != nil {
			return nil, err
		}
	}
	for _, p := range []*netlab.Pod{s.A, s.B} {
		if err := p.Namespace().Do(roomyPorts); err != nil {
			return nil, fmt.Errorf("set up %s: %w", p.Key(), err)
		}
	}
	return s, nil
}

// otherAddr is the address of one of the pods besides the two.
func otherAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 244, byte(1 + i/250), byte(2 + i%250)})
}

// roomyPorts lets short connections by the ten thousand find a port.
func roomyPorts() error {
	return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("4096 65535"), 0o644)
}

func (s *Stage) close() error {
	var errs []error
	if s.Net != nil {
		errs = append(errs, s.Net.Close())
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// addr returns a pod's address in the workload's family.
func (s *Stage) addr(p *netlab.Pod) netip.Addr {
	if s.Workload.Family == 6 {
		return p.Addrs()[1]
	}
	return p.Addrs()[0]
}

// family is that of the workload's packets.
func (s *Stage) family() int {
	if s.Workload == nil || s.cable != nil {
		return 4
	}
	return s.Workload.Family
}

// service is where pod B serves.
func (s *Stage) service() netip.AddrPort { return netip.AddrPortFrom(s.addr(s.B), servicePort) }

// end is one end of the traffic.
func (s *Stage) end(p *netlab.Pod, cpu int) traffic.End {
	return traffic.End{Space: p.Namespace(), CPU: cpu, Congestion: s.congestion}
}

// probe sees that real TCP and UDP get through and back, so that what is
// counted later are packets that a server would have accepted; or, where they
// are denied, that they don't.
func (s *Stage) probe(ctx context.Context) error {
	want := !s.Workload.Rules.denies() || !s.enforces
	ns := s.B.Namespace()
	tcp, err := ns.EchoTCP(s.service())
	if err != nil {
		return err
	}
	defer tcp.Close()
	udp, err := ns.EchoUDP(s.service())
	if err != nil {
		return err
	}
	defer udp.Close()
	from := netip.AddrPortFrom(s.addr(s.A), 0)
	a := s.A.Namespace()
	both := make(chan error, 2) // at a time: what is denied takes seconds to be known
	for name, probe := range map[string]func(context.Context, netip.AddrPort, netip.AddrPort) (netlab.Result, error){
		"TCP": a.ProbeTCP, "UDP": a.ProbeUDP,
	} {
		go func() {
			r, err := probe(ctx, from, s.service())
			if err == nil && r.Passed != want {
				err = fmt.Errorf("%s from %s to %s: %s", name, s.A.Key(), s.B.Key(), r.Seen)
			}
			both <- err
		}()
	}
	return errors.Join(<-both, <-both)
}

// linkIndex finds a link in a namespace.
func linkIndex(ns *netlab.Namespace, name string) (index int, mac net.HardwareAddr, err error) {
	err = ns.Do(func() error {
		l, err := net.InterfaceByName(name)
		if err == nil {
			index, mac = l.Index, l.HardwareAddr
		}
		return err
	})
	if err != nil {
		return 0, nil, fmt.Errorf("find link %s in %s: %w", name, ns.Name(), err)
	}
	return index, mac, nil
}

// tail returns the end of the log of the system's processes.
func (s *Stage) tail() string {
	b, err := os.ReadFile(s.log.Name())
	if err != nil {
		return ""
	}
	return string(b[max(0, len(b)-2000):])
}
