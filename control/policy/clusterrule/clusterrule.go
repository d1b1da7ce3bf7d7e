// Package clusterrule builds what ClusterNetworkPolicy and its predecessors
// AdminNetworkPolicy and BaselineAdminNetworkPolicy have in common. The
// front-ends of these languages fill in a Policy; Build validates it and makes
// the model of it.
//
// It fails closed as the API asks for: a rule with a peer, port or field of
// unknown kind accepts nothing, or denies all if it was to deny or to pass. Of
// an object with another fault only what it denies is left.
package clusterrule

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/labelselector"
)

// AuditAnnotation set to "true" makes a policy's denials reports.
const AuditAnnotation = "sluice.dev/audit"

// Policy is one object, read but not yet judged.
type Policy struct {
	Origin          policy.Origin
	Tier            policy.Tier
	Priority        int32
	Audit           bool
	Subject         Peer // Namespaces or Pods
	Ingress, Egress []Rule
	Limits          Limits
	Faults          field.ErrorList // found by the front-end
}

// Limits are the most elements that lists may have.
type Limits struct{ Rules, Peers, Ports, Values int }

// Rule is one line, at its place in the object.
type Rule struct {
	At      *field.Path
	Name    string
	Action  policy.Action
	Unknown bool   // the action is none that the front-end knows
	Said    string // what stands there for the action
	PeersAt *field.Path
	Peers   []Peer
	PortsAt *field.Path
	Ports   []Port
	NoPorts bool // the list of ports is there, and empty
}

// Peer has one of its fields set, or none if it is of unknown kind.
type Peer struct {
	Namespaces    *metav1.LabelSelector
	PodNamespaces *metav1.LabelSelector // with Pods
	Pods          *metav1.LabelSelector
	Nodes         *metav1.LabelSelector
	Networks      []string
	Domains       []string
}

// Port is one port, range or port name.
type Port struct {
	At       *field.Path
	Known    bool
	Protocol policy.Protocol // 0 with a Name
	From, To int32
	Name     string
	Fault    *field.Error // found by the front-end
}

// builder collects the faults of one object.
type builder struct {
	faults  field.ErrorList // make the object invalid
	unknown field.ErrorList // make their rule fail closed
	limits  Limits
}

// Build returns the model of p, and what doesn't hold as written.
func Build(p *Policy) (*policy.Policy, []policy.Rejection) {
	b := &builder{limits: p.Limits}
	for _, f := range p.Faults {
		if f.Detail == policy.UnknownField && (strings.HasPrefix(f.Field, "spec.ingress[") || strings.HasPrefix(f.Field, "spec.egress[")) {
			b.unknown = append(b.unknown, f)
		} else {
			b.faults = append(b.faults, f)
		}
	}
	out := &policy.Policy{Origin: p.Origin, Tier: p.Tier, Order: float64(p.Priority), Audit: p.Audit}
	if p.Origin.Name == "" {
		b.faults = append(b.faults, field.Required(field.NewPath("metadata", "name"), "name or generateName is required"))
	}
	if p.Priority < 0 || p.Priority > 1000 {
		b.faults = append(b.faults, field.Invalid(field.NewPath("spec", "priority"), p.Priority, validation.InclusiveRangeError(0, 1000)))
	}
	out.Subject = b.subject(p.Subject, field.NewPath("spec", "subject"))
	out.Ingress = b.section(p.Ingress, field.NewPath("spec", "ingress"))
	out.Egress = b.section(p.Egress, field.NewPath("spec", "egress"))
	if len(b.faults) > 0 {
		out.Rejected = true
		for _, s := range []*policy.Section{&out.Ingress, &out.Egress} {
			s.Rules = slices.DeleteFunc(s.Rules, func(r policy.Rule) bool { return r.Action != policy.Deny })
		}
	}
	return out, b.rejections(p.Origin)
}

func (b *builder) rejections(o policy.Origin) []policy.Rejection {
	var out []policy.Rejection
	add := func(faults field.ErrorList, effect string) {
		for _, f := range faults {
			out = append(out, policy.Rejection{Object: o.String(), Field: f.Field, Reason: f.ErrorBody(), Effect: effect})
		}
	}
	add(b.faults, "the policy accepts and passes nothing; rules that deny or pass and are not understood deny all")
	add(b.unknown, "the rule accepts nothing; if it is to deny or pass, it denies all")
	slices.SortStableFunc(out, func(a, b policy.Rejection) int {
		if c := strings.Compare(a.Field, b.Field); c != 0 {
			return c
		}
		return strings.Compare(a.Reason, b.Reason)
	})
	return out
}

// subject selects all pods if it can't be understood.
func (b *builder) subject(p Peer, at *field.Path) []*policy.Selector {
	before := len(b.faults)
	var out *policy.Selector
	switch {
	case p.Namespaces == nil && p.Pods == nil:
		b.faults = append(b.faults, field.Required(at, "must specify namespaces or pods"))
	case p.Namespaces != nil && p.Pods != nil:
		b.faults = append(b.faults, field.Forbidden(at, "may not specify both namespaces and pods"))
	default:
		out = b.pods(p, at)
	}
	if len(b.faults) > before {
		out = policy.NewSelector(policy.SelectorSpec{})
	}
	return []*policy.Selector{out}
}

// pods converts Namespaces or Pods; nil if they are not valid.
func (b *builder) pods(p Peer, at *field.Path) *policy.Selector {
	var spec policy.SelectorSpec
	before := len(b.faults)
	if p.Namespaces != nil {
		b.faults = append(b.faults, labelselector.Validate(p.Namespaces, at.Child("namespaces"))...)
	} else {
		b.faults = append(b.faults, labelselector.Validate(p.PodNamespaces, at.Child("pods", "namespaceSelector"))...)
		b.faults = append(b.faults, labelselector.Validate(p.Pods, at.Child("pods", "podSelector"))...)
	}
	if len(b.faults) > before {
		return nil
	}
	if p.Namespaces != nil {
		spec.NamespaceLabels = labelselector.Requirements(p.Namespaces)
	} else {
		spec.NamespaceLabels = labelselector.Requirements(p.PodNamespaces)
		spec.Labels = labelselector.Requirements(p.Pods)
	}
	return policy.NewSelector(spec)
}

// tooMany rejects a list that is longer than the API allows.
func (b *builder) tooMany(at *field.Path, n, most int) {
	if most > 0 && n > most {
		b.faults = append(b.faults, field.TooMany(at, n, most))
	}
}

// faulty reports whether a fault is known at or below a field.
func (b *builder) faulty(at *field.Path) bool {
	within := func(f *field.Error) bool {
		rest, ok := strings.CutPrefix(f.Field, at.String())
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	return slices.ContainsFunc(b.faults, within) || slices.ContainsFunc(b.unknown, within)
}

func (b *builder) section(rules []Rule, at *field.Path) policy.Section {
	b.tooMany(at, len(rules), b.limits.Rules)
	s := policy.Section{Applies: len(rules) > 0, Default: policy.Pass}
	for i := range rules {
		if r, ok := b.rule(i, &rules[i]); ok {
			s.Rules = append(s.Rules, r)
		}
	}
	return s
}

// rule converts one rule. One that is not understood denies all, or is left
// out if it was to accept.
func (b *builder) rule(index int, r *Rule) (policy.Rule, bool) {
	faulty := b.faulty(r.At)
	before := len(b.faults) + len(b.unknown)
	out := policy.Rule{Index: index, Action: r.Action, AnyPort: len(r.Ports) == 0}
	if utf8.RuneCountInString(r.Name) > maxName {
		b.faults = append(b.faults, field.TooLongCharacters(r.At.Child("name"), r.Name, maxName))
	}
	if r.Unknown {
		b.faults = append(b.faults, field.Invalid(r.At.Child("action"), r.Said, "not a known action"))
	}
	if len(r.Peers) == 0 {
		b.faults = append(b.faults, field.Required(r.PeersAt, "must specify at least one peer"))
	}
	if r.NoPorts {
		b.faults = append(b.faults, field.Required(r.PortsAt, "must specify at least one, or leave the field out"))
	}
	b.tooMany(r.PeersAt, len(r.Peers), b.limits.Peers)
	b.tooMany(r.PortsAt, len(r.Ports), b.limits.Ports)
	podsOnly := true
	for i := range r.Peers {
		p, at := &r.Peers[i], r.PeersAt.Index(i)
		out.Peers = append(out.Peers, b.peer(p, r, at)...)
		podsOnly = podsOnly && p.Nodes == nil && p.Networks == nil && p.Domains == nil
	}
	for _, p := range r.Ports {
		out.Ports = append(out.Ports, b.port(p, podsOnly))
	}
	if !faulty && len(b.faults)+len(b.unknown) == before {
		return out, true
	}
	return policy.Rule{Index: index, Action: policy.Deny, AnyPeer: true, AnyPort: true}, r.Unknown || r.Action != policy.Allow
}

func (b *builder) peer(p *Peer, r *Rule, at *field.Path) []policy.Peer {
	kinds := 0
	for _, set := range []bool{p.Namespaces != nil, p.Pods != nil, p.Nodes != nil, p.Networks != nil, p.Domains != nil} {
		if set {
			kinds++
		}
	}
	if kinds > 1 {
		b.faults = append(b.faults, field.Forbidden(at, "may not specify more than one kind of peer"))
		return nil
	}
	var out []policy.Peer
	switch {
	case p.Namespaces != nil || p.Pods != nil:
		if s := b.pods(*p, at); s != nil {
			out = append(out, policy.Peer{Selector: s})
		}
	case p.Nodes != nil:
		faults := labelselector.Validate(p.Nodes, at.Child("nodes"))
		b.faults = append(b.faults, faults...)
		if len(faults) == 0 {
			out = append(out, policy.Peer{Selector: policy.NewSelector(policy.SelectorSpec{
				Kind: policy.KindNode, Labels: labelselector.Requirements(p.Nodes)})})
		}
	case len(p.Networks) > 0:
		b.set(at.Child("networks"), p.Networks)
		for i, s := range p.Networks {
			prefix, err := netip.ParsePrefix(s)
			if err != nil || prefix.Addr().Is4In6() {
				b.faults = append(b.faults, field.Invalid(at.Child("networks").Index(i), s, "Invalid CIDR format provided"))
				continue
			}
			out = append(out, policy.Peer{Block: &policy.Block{Prefix: prefix.Masked()}})
		}
	case len(p.Domains) > 0:
		b.set(at.Child("domainNames"), p.Domains)
		if r.Action != policy.Allow {
			b.unknown = append(b.unknown, field.Forbidden(at.Child("domainNames"), "only supported for rules that accept"))
		}
		for i, s := range p.Domains {
			if !domainName.MatchString(s) {
				b.faults = append(b.faults, field.Invalid(at.Child("domainNames").Index(i), s, "must be a domain name, or *. and one"))
				continue
			}
			out = append(out, policy.Peer{Domain: s})
		}
	default:
		b.unknown = append(b.unknown, field.Required(at, "must specify a peer"))
	}
	return out
}

// set judges a list whose values have to differ.
func (b *builder) set(at *field.Path, values []string) {
	b.tooMany(at, len(values), b.limits.Values)
	for i, v := range values {
		if slices.Index(values, v) < i {
			b.faults = append(b.faults, field.Duplicate(at.Index(i), v))
		}
	}
}

// maxName is the longest name of a rule, in characters.
const maxName = 100

// domainName is the CRD's pattern, without the characters between Z and a
// that it lets in by a slip.
var domainName = regexp.MustCompile(`^(\*\.)?([a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$`)

// EmptyRange is what the CRD says of a range that doesn't rise.
const EmptyRange = "Start port must be less than End port"

func (b *builder) port(p Port, podsOnly bool) policy.Port {
	switch {
	case p.Fault != nil:
		b.faults = append(b.faults, p.Fault)
	case !p.Known:
		b.unknown = append(b.unknown, field.Required(p.At, "must specify a port"))
	case p.Name != "":
		if !podsOnly {
			b.faults = append(b.faults, field.Forbidden(p.At, "networks, nodes and domainNames have no named ports"))
		}
	case p.From < 1 || p.From > 65535:
		b.faults = append(b.faults, field.Invalid(p.At, p.From, validation.InclusiveRangeError(1, 65535)))
	case p.To < 1 || p.To > 65535:
		b.faults = append(b.faults, field.Invalid(p.At, p.To, validation.InclusiveRangeError(1, 65535)))
	case p.To < p.From:
		b.faults = append(b.faults, field.Invalid(p.At, p.To, EmptyRange))
	}
	return policy.Port{Protocol: p.Protocol, From: uint16(p.From), To: uint16(p.To), Name: p.Name}
}
