package scenario

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/bench/traffic"
)

//go:embed peer/forward.c
var forwardSource []byte

// dpdk is a forwarder in C on DPDK's AF_XDP driver that classifies every packet
// with librte_acl: sockets on both pods' host-side links, one core, bursts of
// 64, stateless. IPv4 only.
var dpdk = System{
	Name:    "dpdk",
	About:   "a forwarder in C on DPDK's AF_XDP driver, sockets on the pods' links, every packet through librte_acl; stateless",
	Needs:   func() error { _, err := forwardBinary(); return err },
	Version: versionOf("pkg-config", "--modversion", "libdpdk"),
	Start:   startDPDK,
}

// forwardBinary builds the forwarder once a process.
var forwardBinary = sync.OnceValues(func() (string, error) {
	flags := map[string][]string{}
	for _, f := range []string{"--cflags", "--libs"} {
		out, err := exec.Command("pkg-config", f, "libdpdk").Output()
		if err != nil {
			return "", fmt.Errorf("no DPDK on this machine (Debian: libdpdk-dev pkg-config gcc): %w", err)
		}
		flags[f] = strings.Fields(string(out))
	}
	dir, err := os.MkdirTemp("", "sluice-dpdk-")
	if err != nil {
		return "", fmt.Errorf("create folder for the forwarder: %w", err)
	}
	defer os.RemoveAll(dir)
	src, bin := filepath.Join(dir, "forward.c"), filepath.Join(dir, "forward")
	if err := os.WriteFile(src, forwardSource, 0o600); err != nil {
		return "", fmt.Errorf("write source of the forwarder: %w", err)
	}
	args := append(append([]string{"-O3", "-march=native"}, flags["--cflags"]...), src, "-o", bin)
	if out, err := exec.Command("cc", append(args, flags["--libs"]...)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the forwarder on DPDK: %w\n%s", err, out)
	}
	// It lives in memory: nothing is left, however this process ends.
	return inMemory(bin)
})

func startDPDK(ctx context.Context, s *Stage) (_ Running, err error) {
	bin, err := forwardBinary()
	if err != nil {
		return nil, err
	}
	var rules strings.Builder
	fmt.Fprintf(&rules, "%s %s\n", addrsB[0], addrsA[0]) // what B answers
	for _, p := range s.Workload.Rules.peers() {
		fmt.Fprintf(&rules, "%s %s\n", p, addrsB[0])
	}
	path := filepath.Join(s.dir, "rules")
	if err := os.WriteFile(path, []byte(rules.String()), 0o600); err != nil {
		return nil, fmt.Errorf("write rules: %w", err)
	}
	macs, err := bareFrames(s)
	if err != nil {
		return nil, err
	}
	p, err := startProgram(s, bin, "--no-huge", "--no-shconf", "--no-pci", "--no-telemetry", "-m", "1024",
		"--log-level=error", "--force-max-simd-bitwidth=512", "-l", strconv.Itoa(loopCPU()),
		"--vdev", "net_af_xdp0,iface="+s.A.Link(), "--vdev", "net_af_xdp1,iface="+s.B.Link(),
		"--", path, macs[0], macs[1])
	if err != nil {
		return nil, err
	}
	if err := p.settled(ctx, s, func() bool { return s.logged("forwarding") }); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return processRunning{p, map[string]string{"xsk": "copy", "pods": "tx-checksum off, no TSO", "loop": "busy, one core"}}, nil
}

// bareFrames turns the pods' checksum offload off, because XDP sees frames
// before their checksums are filled in, and returns the pods' MACs.
func bareFrames(s *Stage) (macs []string, err error) {
	for _, p := range []*netlab.Pod{s.A, s.B} {
		ns := p.Namespace()
		if err := ns.Do(func() error { return traffic.TxChecksum.Set("eth0", false) }); err != nil {
			return nil, err
		}
		_, mac, err := linkIndex(ns, "eth0")
		if err != nil {
			return nil, err
		}
		macs = append(macs, mac.String())
	}
	return macs, nil
}

// processRunning is a system that is one process.
type processRunning struct {
	*process
	modes map[string]string
}

func (r processRunning) Modes() map[string]string { return r.modes }
func (r processRunning) Stop() error              { return r.stop() }
