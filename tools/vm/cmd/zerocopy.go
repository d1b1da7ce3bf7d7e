package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/sluice-net/sluice/tools/vm"
)

// zerocopySources are where a kernel may come from whose virtio_net has AF_XDP
// zero-copy, 6.14 or later: the first that there is.
var zerocopySources = []vm.Source{
	{Suite: "trixie-backports"},
	{Suite: "sid"},
}

// underTest is how the NICs have to be that are under test: without it their ring
// addresses are no DMA addresses and zero-copy is refused.
const underTest = "iommu_platform=on,disable-legacy=on"

// cable is two virtio NICs on a hub. Their addresses end in twice its number and
// one more or two.
func cable(hub int, first, second string) []string {
	var args []string
	for i, opts := range []string{first, second} {
		n := 2*hub + i + 1
		args = append(args, "-netdev", fmt.Sprintf("hubport,id=n%d,hubid=%d", n, hub),
			"-device", strings.TrimSuffix(fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=52:54:00:00:00:%02x,%s", n, n, opts), ","))
	}
	return args
}

// withNICs has the end-to-end tests of a job use the NICs of the first cable: the
// second is the node's uplink, the first the other end.
func withNICs(j vm.Job) vm.Job {
	j.Env = append(j.Env, "SLUICE_E2E_NICS=52:54:00:00:00:02,52:54:00:00:00:01")
	return j
}

// zerocopy runs tools/vm/zerocopy in a guest, and an agent with an uplink.
func zerocopy(ctx context.Context, o options, bin string) error {
	files, err := build(ctx, bin, "./tools/vm/zerocopy", "./control/e2e")
	if err != nil {
		return err
	}
	for _, name := range []string{"nft", "ip"} {
		if err := addProgram(ctx, files, name); err != nil {
			return err
		}
	}
	k, err := fetchFirst(ctx, o)
	if err != nil {
		return err
	}
	// The agent, with the first NIC under test as its uplink and the generator at
	// the other end of the cable.
	agent := withNICs(testJob("agent", "e2e.test", "^(TestUplink|TestUplinkTagged)$/^(offload|inspect)$"))
	var log bytes.Buffer
	m := vm.Machine{
		Kernel: k, Modules: append([]string{"virtio_pci", "virtio_net", "af_packet"}, netModules...), Files: files,
		Jobs:    []vm.Job{testJob("zerocopy", "zerocopy.test", "."), agent},
		Devices: append(cable(0, "", underTest), cable(1, underTest, "")...), MemoryMB: 1536, Timeout: 30 * time.Minute, Console: &log,
	}
	if o.verbose {
		m.Console = io.MultiWriter(&log, os.Stderr)
	}
	results, err := m.Run(ctx)
	for _, r := range results {
		if r.Exit != 0 {
			err = errors.Join(err, fmt.Errorf("%s: exit code %d", r.Name, r.Exit))
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", k.Release, err, complaints(log.String()))
	}
	fmt.Printf("%s (%s)\n", k.Release, k.From)
	if !strings.Contains(log.String(), "queues in zerocopy mode") {
		return errors.New("the agent's uplink was not in zero-copy mode")
	}
	for _, line := range proofRE.FindAllStringSubmatch(log.String(), -1) {
		fmt.Println("  " + line[1])
	}
	return nil
}

// proofRE finds what the tests log of themselves.
var proofRE = regexp.MustCompile(`_test\.go:\d+: (.*?)\r?\n`)

func fetchFirst(ctx context.Context, o options) (vm.Kernel, error) {
	var errs []error
	for _, src := range zerocopySources {
		if o.only != "" {
			src.Series = o.only
		}
		k, err := fetch(ctx, src)
		if err == nil {
			return k, nil
		}
		errs = append(errs, err)
	}
	return vm.Kernel{}, errors.Join(errs...)
}
