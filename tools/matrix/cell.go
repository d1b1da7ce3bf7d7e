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
	spans   []span
}

// answer is the verdicts of one pair, by span; nil where there is nothing to judge.
type answer []*verdict.Decision

// ask judges one pair of addresses.
func (a *asker) ask(src, dst verdict.End, pair verdict.Pair) (answer, error) {
	out := make(answer, len(a.spans))
	for i := range a.spans {
		f, ok := a.spans[i].flow(pair)
		if !ok {
			continue
		}
		d, err := a.cluster.Judge(src, dst, pair, f)
		if err != nil {
			return nil, err
		}
		out[i] = &d
	}
	return out, nil
}

// Ports is a set of ports: ranges by protocol. Other stands for all protocols
// without ports, or, if those are not alike, for the ones that no rule names.
type Ports struct {
	ranges []portRange
	named  []portRange // of protocols without ports
	other  bool
	partly bool // protocols without ports are not alike
}

type portRange struct {
	proto    policy.Protocol
	from, to int
}

// MarshalText renders it as String does.
func (p Ports) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// collect returns the ports of the spans that want picks of an answer.
func collect(spans []span, ans answer, want func(i int) bool) Ports {
	var p Ports
	cut, less := false, false // of protocols without ports: some are named; not all are in
	add := func(to *[]portRange, s *span) {
		n := len(*to)
		if n > 0 && (*to)[n-1].proto == s.Protocol && (*to)[n-1].to+1 == int(s.Port) {
			(*to)[n-1].to = int(s.To)
		} else {
			*to = append(*to, portRange{s.Protocol, int(s.Port), int(s.To)})
		}
	}
	for i := range spans {
		s := &spans[i]
		cut = cut || s.named && ans[i] != nil
		switch {
		case ans[i] == nil:
		case !want(i):
			less = less || !verdict.HasPorts(s.Protocol)
		case verdict.HasPorts(s.Protocol):
			add(&p.ranges, s)
		case s.named:
			add(&p.named, s)
		default:
			p.other = true
		}
	}
	if p.partly = cut && less; !p.partly {
		p.named = nil
	}
	return p
}

// String returns "all", "none" or what there is: "TCP/80,443 UDP/53 other", or
// "ICMP/type3 ICMP/type8 IP/47 IP/rest" where protocols without ports are not alike.
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
	for _, r := range p.named {
		parts = append(parts, namedRange(r))
	}
	switch {
	case p.other && p.partly:
		parts = append(parts, "IP/rest")
	case p.other:
		parts = append(parts, "other")
	}
	switch {
	case len(parts) == 0:
		return "none"
	case full == 3 && p.other && !p.partly:
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
	for i, d := range ans {
		if d == nil || slices.ContainsFunc(ans[:i], func(e *verdict.Decision) bool { return same(e, d) }) {
			continue
		}
		out = append(out, Rule{Verdict: word(d.Allowed), DecidedBy: append([]rule.PolicyRef{}, d.DecidedBy...), Reason: d.Reason,
			Ports: collect(a.spans, ans, func(k int) bool { return same(ans[k], d) })})
	}
	return out
}

// same compares what decided.
func same(x, y *verdict.Decision) bool {
	if x == nil || y == nil {
		return x == y
	}
	return x.Allowed == y.Allowed && x.Reason == y.Reason && slices.Equal(x.DecidedBy, y.DecidedBy)
}

func word(allowed bool) string {
	if allowed {
		return verdict.Allow
	}
	return verdict.Deny
}
