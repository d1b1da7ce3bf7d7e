package connectivity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing/fstest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/tools/lab"
)

const space = "sluice-connectivity"

// What the lab's node is made of.
const (
	serverPort  = 8080
	servicePort = 80
	nodePort    = 9000
	worldPort   = 443
	dnsPort     = 53
	question    = "server.sluice-connectivity.svc.cluster.local."
)

// podAddrs are the pods' addresses in the lab.
var podAddrs = map[string][2]netip.Addr{
	Client: pair("10.244.7.10", "fd00:7::10"),
	Other:  pair("10.244.7.11", "fd00:7::11"),
	Server: pair("10.244.7.12", "fd00:7::12"),
	Name:   pair("10.244.7.13", "fd00:7::13"),
}

var (
	serviceAddrs = pair("10.96.7.1", "fd00:96:7::1")
	worldAddrs   = pair("203.0.113.7", "2001:db8:7::7")
)

func pair(v4, v6 string) [2]netip.Addr {
	return [2]netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
}

// labTarget tries a node in network namespaces.
type labTarget struct {
	lab   *lab.Lab
	host  *netlab.Namespace
	world *netlab.External
	open  []io.Closer
	ports atomic.Uint32
	noNAT error // why there is no Service
}

// NewLab brings a lab up for a run. The caller must Close it.
func NewLab(ctx context.Context, opts lab.Options) (_ Target, err error) {
	opts.Files = labFiles()
	t := &labTarget{}
	t.ports.Store(20000)
	if t.lab, err = lab.Up(ctx, opts); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	if t.host, err = netlab.OpenNamespace(t.lab.State().Host); err != nil {
		return nil, err
	}
	t.open = append(t.open, t.host)
	if t.world, err = t.lab.AddExternal(worldAddrs[:]...); err != nil {
		return nil, err
	}
	t.noNAT = t.addService()
	return t, t.serve()
}

func labFiles() fstest.MapFS {
	var text strings.Builder
	fmt.Fprintf(&text, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", space)
	for name, addrs := range podAddrs {
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s, labels: {name: %s}}\n"+
			"spec: {containers: [{name: main}]}\nstatus: {phase: Running, podIPs: [{ip: %s}, {ip: %q}]}\n",
			name, space, name, addrs[0], addrs[1])
	}
	return fstest.MapFS{"pods.yaml": &fstest.MapFile{Data: []byte(text.String()), Mode: 0o644}}
}

// addService translates the Service's address as kube-proxy does.
func (t *labTarget) addService() error {
	rules := fmt.Sprintf(`table inet connectivity {
	chain services {
		ip daddr %s tcp dport %d dnat ip to %s:%d
		ip6 daddr %s tcp dport %d dnat ip6 to [%s]:%d
	}
	chain prerouting { type nat hook prerouting priority dstnat; jump services; }
	chain output { type nat hook output priority -100; jump services; }
}
`, serviceAddrs[0], servicePort, podAddrs[Server][0], serverPort, serviceAddrs[1], servicePort, podAddrs[Server][1], serverPort)
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := t.host.Run(cmd); err != nil {
		return fmt.Errorf("write rules of the Service with nft: %w: %s", err, out.String())
	}
	return nil
}

// serve starts the servers.
func (t *labTarget) serve() error {
	server, _ := t.lab.Pod(space + "/" + Server)
	name, _ := t.lab.Pod(space + "/" + Name)
	for i := range 2 {
		for _, s := range []struct {
			ns *netlab.Namespace
			at netip.AddrPort
		}{
			{server, netip.AddrPortFrom(podAddrs[Server][i], serverPort)},
			{t.host, netip.AddrPortFrom(t.nodeAddr(i), nodePort)},
			{t.world.Namespace(), netip.AddrPortFrom(worldAddrs[i], worldPort)},
		} {
			c, err := s.ns.EchoTCP(s.at)
			if err != nil {
				return err
			}
			t.open = append(t.open, c)
		}
		c, err := ServeNames(name, netip.AddrPortFrom(podAddrs[Name][i], dnsPort))
		if err != nil {
			return err
		}
		t.open = append(t.open, c)
	}
	return nil
}

func (t *labTarget) nodeAddr(i int) netip.Addr { return netlab.Default("x").NodeAddrs[i] }

// Try implements Target.
func (t *labTarget) Try(ctx context.Context, from string, to Dest, family int) (Outcome, error) {
	ns, _ := t.lab.Pod(space + "/" + from)
	if ns == nil {
		return Outcome{}, fmt.Errorf("pod %s is not there", from)
	}
	i := family/2 - 2
	src := netip.AddrPortFrom(podAddrs[from][i], uint16(t.ports.Add(1)))
	var dst netip.AddrPort
	switch to {
	case Pod:
		dst = netip.AddrPortFrom(podAddrs[Server][i], serverPort)
	case Service:
		if t.noNAT != nil {
			return Outcome{}, fmt.Errorf("%w: %w", ErrSkip, t.noNAT)
		}
		dst = netip.AddrPortFrom(serviceAddrs[i], servicePort)
	case Node:
		dst = netip.AddrPortFrom(t.nodeAddr(i), nodePort)
	case World:
		dst = netip.AddrPortFrom(worldAddrs[i], worldPort)
	case DNS:
		return askName(ctx, ns, src, netip.AddrPortFrom(podAddrs[Name][i], dnsPort))
	}
	r, err := ns.ProbeTCP(ctx, src, dst)
	return Outcome{r.Passed, r.Seen}, err
}

// Apply implements Target.
func (t *labTarget) Apply(ctx context.Context, policies map[string]string) error {
	var text strings.Builder
	text.WriteString("# the policies of a stage\n")
	for name, spec := range policies {
		fmt.Fprintf(&text, "---\n%s", Manifest(space, name, spec, serviceAddrs[:]))
	}
	file := filepath.Join(t.lab.Manifests(), "policies.yaml")
	tmp := filepath.Join(t.lab.Manifests(), ".policies")
	if err := errors.Join(os.WriteFile(tmp, []byte(text.String()), 0o644), os.Rename(tmp, file)); err != nil {
		return fmt.Errorf("write policies: %w", err)
	}
	if err := t.lab.Refresh(ctx); err != nil {
		return err
	}
	return t.lab.WaitEnforced(ctx)
}

// Close implements Target.
func (t *labTarget) Close() error {
	var errs []error
	for _, c := range t.open {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, t.lab.Close())...)
}

// ServeNames answers every question for an address, over UDP.
func ServeNames(ns *netlab.Namespace, at netip.AddrPort) (io.Closer, error) {
	var conn *net.UDPConn
	err := ns.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("serve DNS at %v: %w", at, err)
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if answer, ok := answerName(buf[:n]); err == nil && ok {
				_, _ = conn.WriteToUDPAddrPort(answer, from) // a lost answer is asked for again
			}
		}
	}()
	return conn, nil
}

// answerName answers a question with the Service's address.
func answerName(msg []byte) ([]byte, bool) {
	var m dnsmessage.Message
	if err := m.Unpack(msg); err != nil || m.Response || len(m.Questions) != 1 {
		return nil, false
	}
	m.Response, m.Authoritative = true, true
	head := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 5}
	m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: serviceAddrs[0].As4()}}}
	out, err := m.Pack()
	return out, err == nil
}

// dnsTries is how often a question is asked, a second apart.
const dnsTries = 3

// askName asks a server for the Service's address.
func askName(ctx context.Context, ns *netlab.Namespace, src, dst netip.AddrPort) (Outcome, error) {
	var conn *net.UDPConn
	err := ns.Do(func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(src), net.UDPAddrFromAddrPort(dst))
		return err
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("open UDP socket: %w", err)
	}
	defer conn.Close()
	name, err := dnsmessage.NewName(question)
	if err != nil {
		return Outcome{}, err
	}
	q := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: src.Port(), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	text, err := q.Pack()
	if err != nil {
		return Outcome{}, err
	}
	buf := make([]byte, 1500)
	for range dnsTries {
		if ctx.Err() != nil {
			return Outcome{}, ctx.Err()
		}
		if _, err := conn.Write(text); err != nil {
			return Outcome{}, fmt.Errorf("ask %v: %w", dst, err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return Outcome{}, err
		}
		n, err := conn.Read(buf)
		if err != nil {
			continue
		}
		var a dnsmessage.Message
		if err := a.Unpack(buf[:n]); err != nil || a.ID != q.ID || len(a.Answers) == 0 {
			return Outcome{}, fmt.Errorf("answer of %v: not understood", dst)
		}
		return Outcome{Passed: true, Seen: "name resolved"}, nil
	}
	return Outcome{Seen: fmt.Sprintf("no answer to %d questions", dnsTries)}, nil
}
