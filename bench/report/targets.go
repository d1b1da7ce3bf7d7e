package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/sluice-net/sluice/bench/scenario"
)

// target is something that Sluice wants to reach on a machine of two CPUs.
type target struct {
	what             string
	workload, metric string
	system, to       string // to: another system, "workload:" and a workload of the same system, or nothing
	bound            float64
	atMost           bool // else at least
}

const elsewhere = "workload:"

// targets are the project's own. A run that measured other things says nothing
// of them.
var targets = []target{
	{"TCP, by kernel forwarding without policy", "tcp-stream", "rate", "sluice", "kernel", 0.95, false},
	{"small packets, by kernel forwarding without policy", "udp-small", "received", "sluice", "kernel", 1.4, false},
	{"small packets, by nftables with conntrack and a map of 1000", "udp-small", "received", "sluice", "nftables", 2.0, false},
	{"request and response p50, by kernel forwarding", "tcp-rr-same", "p50", "sluice", "kernel", 1.0, true},
	{"connections a second, by kernel forwarding", "tcp-crr", "rate", "sluice", "kernel", 0.9, false},
	{"every packet in userspace, by DPDK and rte_acl", "every-packet", "received", "inspect", "dpdk", 1.0, false},
	{"every packet in userspace, by asavie/xdp", "every-packet", "received", "inspect", "asavie", 1.0, false},
	{"1,000 policies, by one policy", "policies-1k", "received", "sluice", elsewhere + "policies-1", 0.95, false},
	{"10,000 policies, by one policy", "policies-10k", "received", "sluice", elsewhere + "policies-1", 0.95, false},
	{"new flows a second and worker", "new-flows", "admitted", "sluice", "", 300e3, false},
	{"tracing of all verdicts, by none, established flows", "tracing-inspect", "received", "inspect-traced", "inspect-quiet", 0.95, false},
	{"tracing of all verdicts, by none, established flows", "tracing-offload", "received", "sluice-traced", "sluice-quiet", 0.98, false},
	{"requests kept beside a flood of random 5-tuples, %", "beside-random", "kept", "sluice", "", 90, false},
	{"requests kept beside a flood of random 5-tuples, %", "beside-random", "kept", "inspect", "", 90, false},
}

// Outcome is what a run says of a target.
type Outcome struct {
	What, Want, Got string
	Verdict         string
	// Where the time goes, if the target was missed and a profile was made.
	Where string

	missed bool
	pairs  []scenario.Pair // that it is about
}

// Missed are the measurements of missed targets, each with what it is compared
// to: where their time goes is worth to know.
func Missed(r *scenario.Results) (out []scenario.Pair) {
	for _, o := range Outcomes(r) {
		for _, p := range o.pairs {
			if o.missed && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// Outcomes are those targets of which a run says anything.
func Outcomes(r *scenario.Results) (out []Outcome) {
	blocks := map[string]*scenario.Block{}
	for _, b := range r.Blocks() {
		blocks[b.Name] = b
	}
	for _, t := range targets {
		b := blocks[t.workload]
		if b == nil || b.Series(t.system, t.metric) == nil {
			continue
		}
		s := b.Series(t.system, t.metric)
		ratio, ok := t.ratio(blocks, s)
		if !ok {
			continue
		}
		o := Outcome{What: t.system + ": " + t.what, Want: "≥ ", Got: scenario.Number(ratio.Median), Verdict: t.verdict(ratio), pairs: t.pairs()}
		o.missed = strings.HasPrefix(o.Verdict, missed)
		if t.atMost {
			o.Want = "≤ "
		}
		o.Want += scenario.Number(t.bound)
		if ratio.Pairs > 1 {
			o.Got += fmt.Sprintf(" (%s to %s)", scenario.Number(ratio.Min), scenario.Number(ratio.Max))
		}
		if ratio.Pairs < enough {
			o.Verdict += fmt.Sprintf("; %d runs are too few to say", ratio.Pairs)
		}
		if n, of, _ := b.Disturbed(); n > 0 {
			o.Verdict += fmt.Sprintf("; %d of %d samples were disturbed", n, of)
		}
		if limit := b.Limits[t.system]; limit != "" {
			o.Verdict += "; " + limit
		}
		for _, p := range r.Profiles {
			if o.missed && p.Workload == t.workload && p.System == t.system {
				o.Where = p.Where()
			}
		}
		out = append(out, o)
	}
	return out
}

// pairs are the measurements that a target is about.
func (t target) pairs() []scenario.Pair {
	out := []scenario.Pair{{Workload: t.workload, System: t.system}}
	if other, ok := strings.CutPrefix(t.to, elsewhere); ok {
		return append(out, scenario.Pair{Workload: other, System: t.system})
	}
	if t.to != "" {
		out = append(out, scenario.Pair{Workload: t.workload, System: t.to})
	}
	return out
}

// ratio is what a target is about, run by run.
func (t target) ratio(blocks map[string]*scenario.Block, s *scenario.Series) (scenario.Ratio, bool) {
	base := map[int]float64{}
	if pairs := t.pairs(); len(pairs) == 1 {
		for run := range s.ByRun {
			base[run] = 1
		}
	} else {
		b := blocks[pairs[1].Workload]
		if b == nil || b.Series(pairs[1].System, t.metric) == nil {
			return scenario.Ratio{}, false
		}
		base = b.Series(pairs[1].System, t.metric).ByRun
	}
	r := scenario.Compare(s.ByRun, base)
	return r, r.Pairs > 0
}

// verdict says what the runs agree on.
func (t target) verdict(r scenario.Ratio) string {
	low, high := r.Min >= t.bound, r.Max < t.bound
	if t.atMost {
		low, high = r.Max <= t.bound, r.Min > t.bound
	}
	switch {
	case low:
		return "met in every run"
	case high:
		return missed + " in every run"
	case (r.Median >= t.bound) != t.atMost || r.Median == t.bound:
		return "met by the median, not by every run"
	}
	return missed + " by the median, not by every run"
}

// missed is what verdicts of targets that were missed begin with.
const missed = "missed"

// WriteTargets writes the outcomes for people; nothing if there are none.
func WriteTargets(out io.Writer, r *scenario.Results) error {
	list := Outcomes(r)
	if len(list) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nTARGET\tWANT\tGOT\tVERDICT")
	for _, o := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", o.What, o.Want, o.Got, o.Verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, o := range list {
		if o.Where != "" {
			if _, err := fmt.Fprintf(out, "  where the time of %s goes: %s\n", o.pairs[0], o.Where); err != nil {
				return err
			}
		}
	}
	return nil
}
