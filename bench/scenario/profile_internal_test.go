package scenario

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Lines as "perf script -F pid,ip,sym,dso" writes them.
func TestSortProfile(t *testing.T) {
	const self, perf, other = 100, 101, 200
	p := sortProfile(`
    0   ffffffff81001000 default_idle ([kernel.kallsyms])
  100   ffffffff81001000 veth_xmit ([kernel.kallsyms])
  100   ffffffff81001000 veth_xmit ([kernel.kallsyms])
  100             123456 github.com/sluice-net/sluice/dataplane/classify.(*Table).Classify (/usr/bin/sluice)
  100   ffffffffc0001000 bpf_prog_0123456789abcdef_divert_to_pod (bpf_prog_0123456789abcdef_divert_to_pod)
    0   ffffffff81001000 something_else ([kernel.kallsyms])
  101             222222 [unknown] (/usr/bin/perf)
  200             333333 main.main (/home/me/a (b) c)
  100             444444 [unknown] (/memfd:forward (deleted))
no sample at all
`, func(pid int) string { return map[int]string{perf: stagePerf, other: stageOthers}[pid] })
	if got, want := p.String(), ", : 25% veth, queues, softirq, 12% DPDK: forwarder and rest, 12% Go: classifier, 12% Sluice's BPF programs, 12% other processes, 12% rest, 12% the profiler"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if p.Samples != 8 || len(p.Symbols) != 5 || p.Symbols[0].Name != "veth_xmit" || p.Symbols[0].Share != 0.25 {
		t.Errorf("got %+v", p)
	}
	for symbol, want := range map[string]string{
		"github.com/sluice-net/sluice/dataplane.(*worker).process": "Go: worker", "github.com/sluice-net/sluice/dataplane/xsk.(*Socket).Recv": "Go: rings",
		"runtime.futex": "Go: runtime", "xsk_generic_rcv": "AF_XDP in the kernel", "ip_forward": "IP stack", "nft_do_chain": "netfilter and conntrack",
		"__htab_map_lookup_elem": "BPF: maps, helpers, hooks", "packet_snd": "generator and sink", "kmem_cache_free": "memory", "memcpy_orig": "copies and checksums",
		"bpf_prog_00ff_bench_sink": "generator and sink", "handle_softirqs": "veth, queues, softirq", "_raw_spin_unlock_irqrestore": "scheduler, locks and timers",
	} {
		if got := stageOf(symbol, "/usr/bin/sluice"); got != want {
			t.Errorf("%s: in %q, want %q", symbol, got, want)
		}
	}
	if p := sortProfile("nothing", nil); len(p.Stages) != 0 || p.Samples != 0 || strings.Contains(p.String(), "NaN") {
		t.Errorf("nothing: %v", p)
	}
}

// A real perf finds where a process that spins spends its time: in itself.
func TestProfilerSamples(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("perf"); err != nil {
		t.Skip(err) // a program that this machine doesn't have
	}
	dir := t.TempDir()
	p, err := startProfiler(dir)
	if err != nil {
		t.Fatal(err)
	}
	var sum int
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		for i := range 1000 {
			sum += stageSpin(i)
		}
	}
	pr, err := p.stop(t.Context())
	if err != nil || sum == 0 {
		t.Fatal(err)
	}
	if pr.Samples == 0 || pr.Event == "" || pr.About() == "" {
		t.Fatalf("got %+v", pr)
	}
	own := 0.0
	for _, s := range pr.Stages {
		if s.Name != stageOthers && s.Name != stagePerf {
			own += s.Share
		}
	}
	if own == 0 {
		t.Errorf("no sample of this process: %v", pr.Where())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

//go:noinline
func stageSpin(i int) int { return i ^ i>>3 }
