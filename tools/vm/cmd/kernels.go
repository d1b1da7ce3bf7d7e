package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/sluice-net/sluice/tools/vm"
)

// matrix lists the kernels that Sluice is tested on, all of Debian. A suite that
// holds no kernel of the series any more is reported and left out, as backports are
// pruned, and so is one whose newest is of a series that another row has.
// bookworm-backports has trixie's 6.12.
var matrix = []vm.Source{
	{Suite: "bookworm", Series: "6.1"},
	{Suite: "trixie", Series: "6.12"},
	{Suite: "trixie-backports", Series: "6.18"},
	{Suite: "trixie-backports"},
	{Suite: "sid"},
}

// netModules is what the tests' nodes are made of, where it is no part of the
// kernel itself.
var netModules = []string{
	"veth", "bridge", "dummy", "sch_ingress", "cls_bpf", "act_bpf", "ipv6", "xsk_diag",
	"nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_numgen", "nft_ct", "nft_objref", "nft_limit", "nft_log",
	"nfnetlink_log", "nf_conntrack", "bonding", "8021q",
	"virtio_pci", "virtio_net",
}

// row is one line of the table.
type row struct {
	source, release  string
	programs, policy string
	uplink, run      string
	attach, frags    string
}

// kernels runs the tests of the programs and the policy tests of the agent on
// every kernel.
func kernels(ctx context.Context, o options, bin string) error {
	chosen := fetched(ctx, o)
	if o.debs != "" {
		k, err := vm.Unpack(ctx, o.debs, filepath.Join(bin, "kernel"))
		if err != nil {
			return err
		}
		chosen = func(yield func(vm.Kernel, error) bool) { yield(k, nil) }
	}
	files, err := build(ctx, bin, "./xdpprog", "./control/e2e")
	if err != nil {
		return err
	}
	for _, name := range []string{"nft", "ethtool", "ip"} {
		if err := addProgram(ctx, files, name); err != nil {
			return err
		}
	}
	var rows []row
	failed := 0
	for k, err := range chosen {
		if err == nil {
			var r row
			start := time.Now()
			r, err = oneKernel(ctx, k, files, o)
			fmt.Fprintf(os.Stderr, "%s: %s in %v\n", k.From, k.Release, time.Since(start).Round(time.Second))
			rows = append(rows, r)
		}
		if err != nil {
			failed++
			fmt.Fprintln(os.Stderr, err)
		}
		// At once: a run takes long, and may be cut short.
		if o.out != "" {
			if err := os.WriteFile(o.out, []byte(format(rows, o)), 0o644); err != nil {
				return fmt.Errorf("write table: %w", err)
			}
		}
	}
	if len(rows) == 0 && failed == 0 {
		return errors.New("no kernel was tested")
	}
	fmt.Print(format(rows, o))
	if failed > 0 {
		return fmt.Errorf("%d kernels failed or were not to be had", failed)
	}
	return nil
}

// fetched gets the kernels of the matrix, one when it is asked for.
func fetched(ctx context.Context, o options) iter.Seq2[vm.Kernel, error] {
	return func(yield func(vm.Kernel, error) bool) {
		had := make(map[string]bool) // series
		for _, src := range matrix {
			if o.only != "" && cmp.Or(src.Series, "newest") != o.only {
				continue
			}
			k, err := fetch(ctx, src)
			switch {
			case errors.Is(err, vm.ErrNoKernel):
				fmt.Fprintln(os.Stderr, err)
				continue
			case err == nil && had[k.Series()]:
				fmt.Fprintf(os.Stderr, "%s: its %s is of a series that another suite has\n", src, k.Release)
				continue
			}
			had[k.Series()] = true
			if !yield(k, err) {
				return
			}
		}
	}
}

// programTests are those of the programs that ask something of the kernel: every
// way of loading them, batches, adoption, and the helpers that they call. Each loads
// them anew, which takes seconds in emulation: what one kernel answers as the other
// does is left out.
const programTests = "^(TestEveryWay|TestAdoption|TestPrograms|TestFlowBatches|TestTraffic|TestFragments|TestBudget|" +
	"TestShortcut|TestSteerAndDeliver|TestPodLink|TestUplinkPasses|TestUplinkResume)$"

// policyTests are those of the agent's end-to-end tests that say whether a
// kernel is fit: attaching, judging both protocols and families, fragments, an
// agent that the kernel kills for want of memory, and one whose clock jumps. Those of
// the clock run alone, before the others. inspectTests judge once more, on a
// bridge, every packet in a worker.
const (
	policyTests  = "^(TestClockJump|TestClockJumpStale|TestAttachments|TestPolicies|TestPing|TestLargeDatagrams|TestOutOfMemory)$/^routed$/^offload$"
	inspectTests = "^TestPolicies$/^bridge$/^inspect$"
)

// uplinkTests are those of uplinks: a link with real traffic, one that is another's,
// bonds and VLANs. nicTests have a NIC with a driver.
const (
	uplinkTests = "^(TestUplink|TestUplinkOtherProgram|TestUplinkBond|TestUplinkVLAN)$/^offload$"
	nicTests    = "^TestUplinkTagged$"
)

// quickPrograms load all programs in every way in which the agent sets them up.
const quickPrograms = "^TestEveryWay$"

// jobs are what a kernel has to do.
func jobs(o options) []vm.Job {
	if o.run != "" {
		job := testJob("run", "e2e.test", o.run)
		if o.nics {
			job = withNICs(job)
		}
		return []vm.Job{job}
	}
	if o.quick {
		return []vm.Job{testJob("programs", "xdpprog.test", quickPrograms), testJob("attach", "e2e.test", "^TestAttachments$")}
	}
	return []vm.Job{
		// It finds nothing that stands in the way, or all that follows is for naught.
		{Name: "doctor", Args: []string{"/bin/sluice", "doctor"}},
		testJob("programs", "xdpprog.test", programTests),
		testJob("uplink", "e2e.test", uplinkTests),
		withNICs(testJob("uplink, NIC", "e2e.test", nicTests)),
		testJob("policy", "e2e.test", policyTests),
		testJob("policy, inspect", "e2e.test", inspectTests),
	}
}

func oneKernel(ctx context.Context, k vm.Kernel, files map[string]string, o options) (row, error) {
	r := row{source: k.From, release: k.Release, programs: "–", policy: "–", uplink: "–", run: "–", attach: "–", frags: "–"}
	var log bytes.Buffer
	m := vm.Machine{
		Kernel: k, Modules: netModules, Files: files, MemoryMB: 1536, Timeout: 90 * time.Minute,
		Jobs: jobs(o), Devices: cable(0, "", ""),
		Console: &log,
	}
	if o.verbose {
		m.Console = io.MultiWriter(&log, os.Stderr)
	}
	results, err := m.Run(ctx)
	r.attach, r.frags = found(log.String(), attachRE), found(log.String(), frameRE)
	column := map[string]*string{"programs": &r.programs, "policy": &r.policy, "policy, inspect": &r.policy, "uplink": &r.uplink, "uplink, NIC": &r.uplink, "run": &r.run}
	for _, res := range results {
		mark := "pass"
		if res.Exit != 0 {
			mark = "FAIL"
			err = errors.Join(err, fmt.Errorf("%s: %s: exit code %d", k.Release, res.Name, res.Exit))
		}
		if at := column[res.Name]; at != nil && *at != "FAIL" {
			*at = mark
		}
	}
	if err != nil && !o.verbose {
		err = fmt.Errorf("%w\n%s", err, complaints(log.String()))
	}
	return r, err
}

// What TestAttachments logs of a node.
var (
	attachRE = regexp.MustCompile(`attached by (\w+)`)
	frameRE  = regexp.MustCompile(`packets up to (\d+) bytes`)
)

func found(log string, re *regexp.Regexp) string {
	if m := re.FindStringSubmatch(log); m != nil {
		return m[1]
	}
	return "–"
}

// testRE finds what go test says of whose lines follow, and of who has failed.
var testRE = regexp.MustCompile(`^\s*(=== (?:RUN|CONT|NAME) |--- FAIL: )\s*(\S+)`)

// complaints picks out of a console what failed tests said: of each time that one had
// the word the first lines, which say what it expected, and the lines around other
// failures. What a subtest is found to be is said only after its siblings.
func complaints(log string) string {
	lines := strings.Split(log, "\n")
	failed := map[string]bool{}
	for _, l := range lines {
		if m := testRE.FindStringSubmatch(l); m != nil && m[1] == "--- FAIL: " {
			failed[m[2]] = true
		}
	}
	var b strings.Builder
	left := 0
	for i, l := range lines {
		m := testRE.FindStringSubmatch(l)
		switch {
		case m != nil && m[1] == "--- FAIL: ":
			left = max(left, 12)
		case m != nil && failed[m[2]]:
			left = 40 // the agent's log comes after what was expected
		case m != nil:
			left = 0
		case strings.Contains(l, "guest:") || strings.Contains(l, "panic:"):
			left = max(left, 12)
			if i > 0 {
				b.WriteString(lines[i-1] + "\n")
			}
		}
		if left > 0 && b.Len() < 20000 {
			b.WriteString(l + "\n")
			left--
		}
	}
	return b.String()
}

func format(rows []row, o options) string {
	var b strings.Builder
	if o.run != "" {
		fmt.Fprintf(&b, "| Kernel | From | %s |\n|---|---|---|\n", strings.ReplaceAll(o.run, "|", "\\|"))
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", r.release, r.source, r.run)
		}
		return b.String()
	}
	fmt.Fprintf(&b, "Run on %s, in emulation.\n\n", time.Now().UTC().Format(time.DateOnly))
	b.WriteString("| Kernel | From | Programs load and pass | Attached by | Largest packet of a pod, bytes | Policy tests | Uplink |\n|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", r.release, r.source, r.programs, r.attach, r.frags, r.policy, r.uplink)
	}
	return b.String()
}
