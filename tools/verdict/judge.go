package verdict

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Decision is what holds for the first packet of a flow.
type Decision struct {
	Allowed bool
	Audit   bool // allowed only because a denial is an audit
	// DecidedBy names the rules that decided: of an allowed flow, egress then
	// ingress; of a denied one, those of the direction that denied first.
	DecidedBy []rule.PolicyRef
	Reason    string // where no policy is one
}

// SamePod is the reason why a pod reaches itself.
const SamePod = "same pod"

// Judge answers from compiled rules.
func (c *Cluster) Judge(src, dst End, pair Pair, f Flow) (Decision, error) {
	if src.same(dst, pair) {
		return Decision{Allowed: true, Reason: SamePod}, nil
	}
	f = f.between(pair)
	egress, err := c.direction(rule.Egress, src, pair.Dst, f)
	if err != nil || !egress.Allowed {
		return egress, err
	}
	ingress, err := c.direction(rule.Ingress, dst, pair.Src, f)
	if err != nil || !ingress.Allowed {
		return ingress, err
	}
	ingress.Audit = ingress.Audit || egress.Audit
	ingress.DecidedBy = slices.Concat(egress.DecidedBy, ingress.DecidedBy)
	return ingress, nil
}

func (e End) same(o End, pair Pair) bool {
	if e.Pod == nil || o.Pod == nil {
		return e.Pod == nil && o.Pod == nil && pair.Src == pair.Dst
	}
	return e.Pod == o.Pod && !e.Pod.HostNetwork
}

// direction looks up what the policies of one end say about the other's
// address.
func (c *Cluster) direction(dir rule.Direction, e End, remote netip.Addr, f Flow) (Decision, error) {
	if !e.Judged() {
		return Decision{Allowed: true}, nil
	}
	n, err := c.node(e.Pod.NodeName)
	if err != nil {
		return Decision{}, err
	}
	q := [1]classify.Query{{Remote: packet.AddrFrom(remote), Row: n.table.Row(n.ids[e.Pod.Key()], dir),
		Proto: packet.Proto(f.Protocol), Port: f.Port}}
	var out [1]classify.Verdict
	n.table.Classify(q[:], out[:])
	cause := n.table.Causes()[n.table.Cause(out[0])]
	return Decision{Allowed: out[0].Allowed(), Audit: out[0].Audit(), DecidedBy: cause.Refs, Reason: cause.Text}, nil
}

// Direction says what the policies of one end alone say: of src for egress, of
// dst for ingress.
func (c *Cluster) Direction(dir rule.Direction, src, dst End, pair Pair, f Flow) (Decision, error) {
	if src.same(dst, pair) {
		return Decision{Allowed: true, Reason: SamePod}, nil
	}
	if dir == rule.Egress {
		return c.direction(dir, src, pair.Dst, f.between(pair))
	}
	return c.direction(dir, dst, pair.Src, f.between(pair))
}

// Text names what decided in one line.
func (d Decision) Text() string {
	switch {
	case len(d.DecidedBy) > 0:
		return RefsText(d.DecidedBy)
	case d.Reason != "":
		return d.Reason
	}
	return "no policy"
}

// RefsText names rules as their users would.
func RefsText(refs []rule.PolicyRef) string {
	text := ""
	for i, r := range refs {
		if i > 0 {
			text += ", "
		}
		text += RefText(r)
	}
	return text
}

// RefText names a rule: "NetworkPolicy shop/api ingress[0]", or "…: no ingress
// rule matches" for a default.
func RefText(r rule.PolicyRef) string {
	name := r.Name
	if r.Namespace != "" {
		name = r.Namespace + "/" + r.Name
	}
	if r.Rule == rule.DefaultRule {
		return r.Kind + " " + name + " (no " + r.Direction.String() + " rule matches)"
	}
	if r.Path != "" {
		return r.Kind + " " + name + " " + strings.TrimPrefix(r.Path, "spec.") + "[" + strconv.Itoa(r.Rule) + "]"
	}
	return r.Kind + " " + name + " " + RulePath(r.Direction, r.Rule)
}

// RulePath names a rule within its policy: "ingress[0]".
func RulePath(d rule.Direction, index int) string {
	return d.String() + "[" + strconv.Itoa(index) + "]"
}

// RuleField names the field of the object that a rule is: "spec.ingress[0]".
func RuleField(d rule.Direction, r *policy.Rule) string {
	if r.Path != "" {
		return r.Path + "[" + strconv.Itoa(r.Index) + "]"
	}
	return "spec." + RulePath(d, r.Index)
}
