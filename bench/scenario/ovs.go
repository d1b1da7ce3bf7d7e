package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/sluice-net/sluice/bench/netlab"
)

// ovs is Open vSwitch's datapath in userspace, on AF_XDP sockets on the pods'
// links, with a flow for each allowed peer, stateless. Its thread polls one core.
// IPv4 only.
var ovs = System{
	Name:    "ovs",
	About:   "Open vSwitch, datapath in userspace on AF_XDP, a flow for each allowed peer and protocol; stateless",
	Needs:   needs("openvswitch-switch", "ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovs-ofctl"),
	Version: versionOf("ovs-vswitchd", "--version"),
	Start:   startOVS,
}

const ovsSchema = "/usr/share/openvswitch/vswitch.ovsschema"

// ovsRunning is its two processes.
type ovsRunning struct{ parts []*process }

func (r *ovsRunning) Modes() map[string]string {
	return map[string]string{"datapath": "netdev, afxdp, best effort", "pods": "tx-checksum off, no TSO", "loop": "busy, one core"}
}

func (r *ovsRunning) Stop() error {
	var errs []error
	for i := len(r.parts) - 1; i >= 0; i-- {
		errs = append(errs, r.parts[i].stop())
	}
	return errors.Join(errs...)
}

func startOVS(ctx context.Context, s *Stage) (_ Running, err error) {
	r := &ovsRunning{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%w\n%s", err, s.tail()), r.Stop())
		}
	}()
	at := func(name string) string { return filepath.Join(s.dir, name) }
	vsctl := func(args ...string) error {
		return s.run(ctx, "", "ovs-vsctl", append([]string{"--timeout=15", "--db=unix:" + at("db.sock")}, args...)...)
	}
	if err := s.run(ctx, "", "ovsdb-tool", "create", at("conf.db"), ovsSchema); err != nil {
		return nil, err
	}
	start := func(name string, args ...string) error {
		p, err := startProgram(s, name, append(args, "--unixctl="+at(name+".ctl"), "-vconsole:err", "-vsyslog:off", "-vfile:off")...)
		if err != nil {
			return err
		}
		r.parts = append(r.parts, p)
		ping := func() bool { return s.run(ctx, "", "ovs-appctl", "-t", at(name+".ctl"), "version") == nil }
		return p.settled(ctx, s, ping)
	}
	if err := start("ovsdb-server", at("conf.db"), "--remote=punix:"+at("db.sock")); err != nil {
		return nil, err
	}
	if err := vsctl("--no-wait", "init"); err != nil {
		return nil, err
	}
	mask := fmt.Sprintf("0x%x", 1<<(runtime.NumCPU()-1)) // the sender is on CPU 0
	if err := vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:pmd-cpu-mask="+mask); err != nil {
		return nil, err
	}
	if err := start("ovs-vswitchd", "unix:"+at("db.sock")); err != nil {
		return nil, err
	}
	macs, err := bareFrames(s)
	if err != nil {
		return nil, err
	}
	if err := vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail-mode=secure"); err != nil {
		return nil, err
	}
	for i, p := range []*netlab.Pod{s.A, s.B} {
		if err := vsctl("add-port", "br0", p.Link(), "--", "set", "interface", p.Link(), "type=afxdp",
			fmt.Sprintf("ofport_request=%d", i+1)); err != nil {
			return nil, err
		}
	}
	flows, err := ovsFlows(s, macs)
	if err != nil {
		return nil, err
	}
	return r, s.run(ctx, flows, "ovs-ofctl", "add-flows", at("br0.mgmt"), "-")
}

// ovsFlows routes between the two pods, as the host does: what B sends, and to B
// what its peers send. All else meets no flow and is dropped.
func ovsFlows(s *Stage, macs []string) (string, error) {
	var hop [2]net.HardwareAddr
	for i, p := range []*netlab.Pod{s.A, s.B} {
		_, mac, err := linkIndex(s.Net.Host(), p.Link())
		if err != nil {
			return "", err
		}
		hop[i] = mac
	}
	to := func(port int) string {
		return fmt.Sprintf("actions=mod_dl_src:%s,mod_dl_dst:%s,output:%d", hop[port-1], macs[port-1], port)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "table=0,priority=20,ip,in_port=2,nw_dst=%s,%s\n", addrsA[0], to(1))
	for _, p := range s.Workload.Rules.peers() {
		for _, proto := range []string{"tcp", "udp"} {
			fmt.Fprintf(&b, "table=0,priority=10,%s,in_port=1,nw_src=%s,nw_dst=%s,%s\n", proto, p, addrsB[0], to(2))
		}
	}
	return b.String(), nil
}
