package matrix

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
)

// asker judges pairs of ends at a list of ports.
type asker struct {
	cluster *verdict.Cluster
	spans   []verdict.PortSpan
}

// answer is the verdicts of one pair, by span.
type answer []verdict.Decision

// ask judges one pair of addresses.
func (a *asker) ask(src, dst verdict.End, pair verdict.Pair) (answer, error) {
	out := make(answer, len(a.spans))
	for i, s := range a.spans {
		d, err := a.cluster.Judge(src, dst, pair, s.Flow)
		if err != nil {
			return nil, err
		}
		out[i] = d
	}
	return out, nil
}

// Ports is a set of ports: ranges by protocol. Other stands for all protocols
// without ports.
type Ports struct {
	ranges []portRange
	other  bool
}

type portRange struct {
	proto    policy.Protocol
	from, to int
}

// MarshalText renders it as String does.
func (p Ports) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// collect returns the ports of the spans that want picks.
func collect(spans []verdict.PortSpan, want func(i int) bool) Ports {
	var p Ports
	for i, s := range spans {
		switch {
		case !want(i):
		case !verdict.HasPorts(s.Protocol):
			p.other = true
		default:
			n := len(p.ranges)
			if n > 0 && p.ranges[n-1].proto == s.Protocol && p.ranges[n-1].to+1 == int(s.Port) {
				p.ranges[n-1].to = int(s.To)
			} else {
				p.ranges = append(p.ranges, portRange{s.Protocol, int(s.Port), int(s.To)})
			}
		}
	}
	return p
}

// String returns "all", "none" or what there is: "TCP/80,443 UDP/53 other".
func (p Ports) String() string {
	full := 0
	var parts []string
	var proto policy.Protocol
	for _, r := range p.ranges {
		text := fmt.Sprint(r.from)
		switch {
		case r.from == 1 && r.to == 65535:
			full++
			text = "all"
		case r.from != r.to:
			text = fmt.Sprintf("%d-%d", r.from, r.to)
		}
		if n := len(parts); n > 0 && proto == r.proto {
			parts[n-1] += "," + text
		} else {
			parts = append(parts, verdict.ProtocolName(r.proto)+"/"+text)
		}
		proto = r.proto
	}
	if p.other {
		parts = append(parts, "other")
	}
	switch {
	case len(parts) == 0:
		return "none"
	case full == 3 && p.other:
		return "all"
	}
	return strings.Join(parts, " ")
}

// Rule says which ports a rule, or a default, decided.
type Rule struct {
	Ports     Ports            `json:"ports"`
	Verdict   string           `json:"verdict"`
	DecidedBy []rule.PolicyRef `json:"decidedBy"`
	Reason    string           `json:"reason,omitempty"`
}

// rules sorts an answer by what decided.
func (a *asker) rules(ans answer) []Rule {
	var out []Rule
	same := func(x, y verdict.Decision) bool {
		return x.Allowed == y.Allowed && x.Reason == y.Reason && slices.Equal(x.DecidedBy, y.DecidedBy)
	}
	for i, d := range ans {
		if slices.ContainsFunc(ans[:i], func(e verdict.Decision) bool { return same(e, d) }) {
			continue
		}
		out = append(out, Rule{Verdict: word(d.Allowed), DecidedBy: append([]rule.PolicyRef{}, d.DecidedBy...), Reason: d.Reason,
			Ports: collect(a.spans, func(k int) bool { return same(ans[k], d) })})
	}
	return out
}

func word(allowed bool) string {
	if allowed {
		return verdict.Allow
	}
	return verdict.Deny
}
