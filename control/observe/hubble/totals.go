package hubble

import (
	"strings"
	"sync"

	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// Totals counts flows by what Hubble's metrics count them by. Add costs some ten
// nanoseconds a flow: all that tells them apart is small numbers.
type Totals struct {
	mu       sync.Mutex
	flows    [numProtos][2][numShapes][numVerdicts]uint64 // second: into a pod of this node
	verdicts [2][numMatches][numVerdicts]uint64
	drops    [numProtos][stat.NumReasons + 1]uint64 // the last: a rule that denies
}

// FlowKind, VerdictKind and DropKind are the labels of Hubble's metrics.
type (
	FlowKind    struct{ Protocol, Type, Subtype, Verdict string }
	VerdictKind struct{ Direction, Match, Action string }
	DropKind    struct{ Reason, Protocol string }
)

const (
	forwarded = iota
	dropped
	audit
	numVerdicts
)

const (
	all = iota
	none
	l3l4
	numMatches
)

const (
	numProtos = 8
	numShapes = 4 // observe.View
)

var (
	protoNames   = [numProtos]string{"Unknown L4", "TCP", "UDP", "SCTP", "ICMPv4", "ICMPv6", "VRRP", "IGMP"}
	verdictNames = [numVerdicts]flowpb.Verdict{flowpb.Verdict_FORWARDED, flowpb.Verdict_DROPPED, flowpb.Verdict_AUDIT}
	matchNames   = [numMatches]string{"all", "none", "l3-l4"}
)

// NewTotals returns totals of nothing.
func NewTotals() *Totals { return &Totals{} }

// Add counts flows.
func (t *Totals) Add(flows []observe.Flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range flows {
		f := &flows[i]
		proto := protoOf(f.Key.Proto)
		for _, v := range f.Views() {
			verdict, local := forwarded, 0
			switch {
			case !f.Allowed:
				verdict = dropped
			case v != observe.Trace && f.Audited(v):
				verdict = audit
			}
			if f.Dst.Endpoint != 0 {
				local = 1
			}
			t.flows[proto][local][v][verdict]++
			switch v {
			case observe.Drop:
				t.drops[proto][dropOf(f)] += 1 + uint64(f.Suppressed)
			case observe.EgressVerdict, observe.IngressVerdict:
				// A node may always reach its pods: Hubble leaves that out.
				if f.Src.Identity != observe.IdentityHost {
					t.verdicts[v][matchOf(f, v)][verdict]++
				}
			}
		}
	}
}

// Each calls visit functions with all that was counted.
func (t *Totals) Each(flow func(FlowKind, uint64), verdict func(VerdictKind, uint64), drop func(DropKind, uint64)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	drops := map[DropKind]uint64{} // several of our reasons may be one of Hubble's
	for p, proto := range protoNames {
		sums := map[FlowKind]uint64{}
		for local := range t.flows[p] {
			for v := range t.flows[p][local] {
				for o, n := range t.flows[p][local][v] {
					kind, sub := shape(observe.View(v), local == 1)
					sums[FlowKind{proto, kind, sub, verdictNames[o].String()}] += n
				}
			}
		}
		for k, n := range sums {
			if n > 0 {
				flow(k, n)
			}
		}
		for r, n := range t.drops[p] {
			if n > 0 {
				drops[DropKind{dropName(r), proto}] += n
			}
		}
	}
	for d := range t.verdicts {
		direction := rule.Egress
		if observe.View(d) == observe.IngressVerdict {
			direction = rule.Ingress
		}
		for m := range t.verdicts[d] {
			for o, n := range t.verdicts[d][m] {
				if n > 0 {
					verdict(VerdictKind{direction.String(), matchNames[m], strings.ToLower(verdictNames[o].String())}, n)
				}
			}
		}
	}
	for k, n := range drops {
		drop(k, n)
	}
}

// shape is how Hubble calls a view.
func shape(v observe.View, local bool) (kind, sub string) {
	switch {
	case v == observe.Drop:
		return "Drop", ""
	case v == observe.Trace && local:
		return "Trace", "to-endpoint"
	case v == observe.Trace:
		return "Trace", "to-stack"
	}
	return "PolicyVerdict", ""
}

func protoOf(p packet.Proto) int {
	switch p {
	case packet.ProtoTCP:
		return 1
	case packet.ProtoUDP:
		return 2
	case packet.ProtoSCTP:
		return 3
	case packet.ProtoICMP:
		return 4
	case packet.ProtoICMPv6:
		return 5
	case protoVRRP:
		return 6
	case protoIGMP:
		return 7
	}
	return 0
}

func matchOf(f *observe.Flow, v observe.View) int {
	cause := f.Egress
	if v == observe.IngressVerdict {
		cause = f.Ingress
	}
	switch {
	case len(cause.Refs) == 0:
		return all
	case cause.Refs[0].Rule == rule.DefaultRule:
		return none
	}
	return l3l4
}

func dropOf(f *observe.Flow) int {
	if f.Reason == stat.Policy && !f.Isolation() {
		return int(stat.NumReasons)
	}
	return int(f.Reason)
}

func dropName(r int) string {
	switch {
	case r == int(stat.NumReasons):
		return flowpb.DropReason_POLICY_DENY.String()
	case stat.Reason(r) == stat.Policy:
		return flowpb.DropReason_POLICY_DENIED.String()
	}
	if name, ok := reasons[stat.Reason(r)]; ok {
		return name.String()
	}
	return flowpb.DropReason_INVALID_PACKET_DROPPED.String()
}
