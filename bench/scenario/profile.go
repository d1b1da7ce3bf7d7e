package scenario

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Profile is where the CPUs' time went during one measurement.
type Profile struct {
	Workload string  `json:"workload"`
	System   string  `json:"system"`
	Stages   []Share `json:"stages"`  // largest first
	Symbols  []Share `json:"symbols"` // the largest
}

// Share is a part of the time that was not idle.
type Share struct {
	Name  string  `json:"name"`
	Share float64 `json:"share"`
}

// stages sort symbols of the kernel and of Go; the first that matches counts.
var stages = []struct {
	name    string
	symbols *regexp.Regexp
}{
	{"idle", regexp.MustCompile(`^(default_idle|pv_native_safe_halt|native_safe_halt|acpi_idle|cpu_startup_entry|do_idle|mwait_idle|intel_idle|cpuidle_)`)},
	{"Go: parser", regexp.MustCompile(`sluice/dataplane/packet\.`)},
	{"Go: flow table", regexp.MustCompile(`sluice/dataplane/flow\.`)},
	{"Go: classifier", regexp.MustCompile(`sluice/dataplane/classify\.`)},
	{"Go: rings", regexp.MustCompile(`sluice/dataplane/xsk\.`)},
	{"Go: events", regexp.MustCompile(`sluice/(dataplane/event|control/observe)`)},
	{"Go: worker", regexp.MustCompile(`sluice/dataplane[./]`)},
	{"Go: generator and harness", regexp.MustCompile(`sluice/bench/`)},
	{"Go: rest of the agent", regexp.MustCompile(`sluice/|/ebpf`)},
	{"Go: runtime", regexp.MustCompile(`^(runtime[./]|gcWrite|memmove|memclr|aeshash|syscall\.|internal/|sync)`)},
	{"BPF programs and maps", regexp.MustCompile(`^(bpf_|__bpf|htab_|__htab|lookup_nulls|array_map|percpu_array|dev_map|xsk_map|cls_bpf|tcx_|tc_run|___bpf|skb_do_redirect)`)},
	{"AF_XDP in the kernel", regexp.MustCompile(`^(xsk_|__xsk|xdp_|xp_|__xp)`)},
	{"netfilter and conntrack", regexp.MustCompile(`^(nf_|__nf|nft_|ipt_|xt_|ip_set|hash_ip|nfqnl|nfnetlink|ct_|hash_conntrack|udp_packet|tcp_in_window)`)},
	{"copies and checksums", regexp.MustCompile(`^(_?copy_|__copy|memcpy|__memcpy|rep_movs|skb_copy|csum_|__skb_check|do_csum|memset|__memset|clear_page)`)},
	{"memory", regexp.MustCompile(`^(kmem_|__kmem|kmalloc|__kmalloc|kfree|__alloc|alloc_|__free|free_|page_|__page|slab|__slab|___slab|put_page|get_page|sock_wfree|sock_alloc|napi_alloc|skb_free|skb_release|consume_skb|__build_skb|build_skb|napi_build|rmqueue|get_partial)`)},
	{"veth, queues, softirq", regexp.MustCompile(`^(veth_|napi_|__napi|net_rx|net_tx|__netif|netif_|process_backlog|dev_|__dev|enqueue_to|handle_softirqs|__do_softirq|__local_bh|eth_type|sch_|pfifo|validate_xmit|ptr_ring|gro_|dev_gro)`)},
	{"IP stack", regexp.MustCompile(`^(ip_|__ip|ip6_|ipv6_|fib_|__fib|rt_|neigh|udp_|__udp|tcp_|__tcp|inet_|__inet|skb_|__skb|sock_|__sock|raw_|arp_)`)},
	{"system calls", regexp.MustCompile(`^(do_syscall|entry_|syscall_|__x64|__sys|___sys|sys_|packet_|tpacket|do_sys_poll|poll_|import_|fdget|fput|__fget|security_|sendmmsg)`)},
	{"scheduler, locks and timers", regexp.MustCompile(`^(sched|__sched|try_to_wake|ttwu|pick_|dequeue|enqueue|update_|finish_task|_raw_|raw_spin|queued_|native_queued|mutex|futex|__futex|hrtimer|timer|tick_|ktime|clock|rcu_|__rcu|smp_|__smp|irq|__irq|asm_|sysvec|migrate_|preempt_|__switch|context_switch|select_task|wake)`)},
	{"DPDK or Open vSwitch", regexp.MustCompile(`^(rte_|eth_af_xdp|search_|dp_netdev|dpcls|miniflow|netdev_|emc_|odp_|dp_packet|af_xdp)`)},
}

// profiler samples all CPUs by perf.
type profiler struct {
	cmd  *exec.Cmd
	path string
	out  bytes.Buffer
}

func startProfiler(dir string) (*profiler, error) {
	p := &profiler{path: filepath.Join(dir, "perf.data")}
	p.cmd = exec.Command("perf", "record", "-a", "-F", "997", "-o", p.path)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start perf: %w", err)
	}
	return p, nil
}

// stop ends the sampling and sorts what there is.
func (p *profiler) stop(ctx context.Context) (pr Profile, err error) {
	p.cmd.Process.Signal(os.Interrupt) // fails if it has ended, of which Wait tells more
	wait := p.cmd.Wait()
	defer func() { err = errors.Join(err, os.Remove(p.path)) }()
	out, err := exec.CommandContext(ctx, "perf", "report", "--stdio", "-i", p.path, "--no-children", "-F", "overhead,sym", "-t", "|").Output()
	if err != nil {
		return pr, errors.Join(fmt.Errorf("read profile: %w", err), wait, errors.New(p.out.String()))
	}
	return sortProfile(string(out)), nil
}

// maxSymbols is how many symbols a profile names.
const maxSymbols = 25

// sortProfile reads lines such as " 1.23%|[k] veth_xmit", which some versions of
// perf fill up with spaces.
func sortProfile(text string) (pr Profile) {
	sums := map[string]float64{}
	var busy float64
	for line := range strings.Lines(text) {
		percent, symbol, ok := strings.Cut(line, "|")
		percent, whole := strings.CutSuffix(strings.TrimSpace(percent), "%")
		v, err := strconv.ParseFloat(percent, 64)
		if !ok || !whole || err != nil {
			continue
		}
		symbol = strings.TrimSpace(symbol)
		if len(symbol) > 4 && symbol[0] == '[' {
			symbol = symbol[4:] // [k], [.]
		}
		at := slices.IndexFunc(stages, func(s struct {
			name    string
			symbols *regexp.Regexp
		}) bool {
			return s.symbols.MatchString(symbol)
		})
		if at == 0 {
			continue
		}
		name := "rest"
		if at > 0 {
			name = stages[at].name
		}
		busy += v
		sums[name] += v
		if len(pr.Symbols) < maxSymbols {
			pr.Symbols = append(pr.Symbols, Share{symbol, v})
		}
	}
	for name, v := range sums {
		pr.Stages = append(pr.Stages, Share{name, v})
	}
	for _, list := range [][]Share{pr.Stages, pr.Symbols} {
		for i := range list {
			list[i].Share /= busy
		}
		slices.SortStableFunc(list, func(a, b Share) int {
			return cmp.Or(cmp.Compare(b.Share, a.Share), strings.Compare(a.Name, b.Name))
		})
	}
	return pr
}

// String is one line with the shares of the stages.
func (p Profile) String() string {
	var parts []string
	for _, s := range p.Stages {
		if s.Share >= 0.01 {
			parts = append(parts, fmt.Sprintf("%.0f%% %s", 100*s.Share, s.Name))
		}
	}
	return p.Workload + ", " + p.System + ": " + strings.Join(parts, ", ")
}

// profile makes the first round once more, under a profiler.
func (p Plan) profile(ctx context.Context, r *Results, steps []step) error {
	if err := needs("linux-perf", "perf")(); err != nil {
		r.Skipped = append(r.Skipped, fmt.Sprintf("profiles: %v", err))
		return nil
	}
	for i, s := range steps {
		if s.run > 0 || s.system.Name == Ceiling {
			continue
		}
		if p.Progress != nil {
			p.Progress(Progress{i, len(steps) / p.Runs, 0, fmt.Sprintf("profile of %s, %s", s.workload.Name, s.system.Name)})
		}
		var pr Profile
		p := p
		p.around = func(ctx context.Context, dir string, f func() error) error {
			prof, err := startProfiler(dir)
			if err != nil {
				return err
			}
			err = f()
			got, bad := prof.stop(ctx)
			pr = got
			return errors.Join(err, bad)
		}
		_, err := p.measure(ctx, s)
		switch {
		case ctx.Err() != nil:
			r.Partial = "interrupted before all profiles were made"
			return context.Cause(ctx)
		case err != nil:
			r.Failures = append(r.Failures, fmt.Sprintf("profile of %s, %s: %v", s.workload.Name, s.system.Name, err))
		default:
			pr.Workload, pr.System = s.workload.Name, s.system.Name
			r.Profiles = append(r.Profiles, pr)
		}
	}
	return nil
}
