package cilium

import (
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
)

// nameLabel is the label of a namespace that has its name.
const nameLabel = "kubernetes.io/metadata.name"

// ignored are the labels of pods that Cilium's agent leaves out of identities
// by default, so that no selector sees them (pkg/labelsfilter): by the
// beginning of their keys.
var ignored = regexp.MustCompile(`^(io\.kubernetes|kubernetes\.io|statefulset\.kubernetes\.io/pod-name|` +
	`apps\.kubernetes\.io/pod-index|batch\.kubernetes\.io/(job-completion-index|controller-uid)|.*beta\.kubernetes\.io|` +
	`k8s\.io|pod-template-generation|pod-template-hash|controller-revision-hash|controller-uid|annotation|etcd_node|` +
	`topology\.kubernetes\.io)`)

// pods returns the pods that a selector matches.
func (s *selector) pods() *policy.Selector {
	var spec policy.SelectorSpec
	for _, q := range s.reqs {
		absent, ok := q.source != sourceAny && q.source != sourceK8s, true
		switch labels, isNamespaceLabel := strings.CutPrefix(q.key, keyNamespaceLabels); {
		case absent:
		case q.key == keyNamespace:
			// Every pod has a namespace, and every namespace its name as a label.
			spec.NamespaceLabels = append(spec.NamespaceLabels, policy.Requirement{Key: nameLabel, Operator: q.op, Values: q.values})
			if q.op == policy.In && len(q.values) == 1 && (spec.Namespace == "" || spec.Namespace == q.values[0]) {
				spec.Namespace = q.values[0]
			}
		case q.key == keyCluster:
			ok = q.matches(cluster, true)
		case q.key == keyServiceAccount:
			spec.Account = append(spec.Account, policy.Requirement{Operator: q.op, Values: q.values})
		case isNamespaceLabel:
			spec.NamespaceLabels = append(spec.NamespaceLabels, policy.Requirement{Key: labels, Operator: q.op, Values: q.values})
		case ignored.MatchString(q.key):
			absent = true
		default:
			spec.Labels = append(spec.Labels, policy.Requirement{Key: q.key, Operator: q.op, Values: q.values})
		}
		if absent {
			ok = q.matches("", false)
		}
		spec.Nothing = spec.Nothing || !ok
	}
	if spec.Nothing {
		spec = policy.SelectorSpec{Nothing: true}
	}
	return policy.NewSelector(spec)
}

func (q *requirement) matches(value string, exists bool) bool {
	switch q.op {
	case policy.In:
		return exists && slices.Contains(q.values, value)
	case policy.NotIn:
		return !exists || !slices.Contains(q.values, value)
	case policy.Exists:
		return exists
	}
	return !exists
}

// zones are what is no pod, by the reserved labels that Cilium gives it in
// dual stack.
var zones = []struct {
	zone  policy.Zone
	label string
}{
	{policy.ZoneOwnNode, "host"},
	{policy.ZoneOtherNodes, "remote-node"},
	{policy.ZoneWorldIPv4, "world-ipv4"},
	{policy.ZoneWorldIPv6, "world-ipv6"},
}

// apiServer is the label that the API server has beside that of its zone.
const apiServer = "kube-apiserver"

// matchesReserved reports whether the selector matches what has just these
// reserved labels. Labels of CIDRs never match: their keys can't be written.
func (s *selector) matchesReserved(labels ...string) bool {
	for _, q := range s.reqs {
		has := (q.source == sourceReserved || q.source == sourceAny) && slices.Contains(labels, q.key)
		if !q.matches("", has) {
			return false
		}
	}
	return true
}

// peers returns all that a selector matches. What is the API server may match
// where its zone doesn't, and the other way round.
func (s *selector) peers() []policy.Peer {
	var out []policy.Peer
	if pods := s.pods(); !pods.MatchesNothing() {
		out = append(out, policy.Peer{Selector: pods})
	}
	var both, without, only policy.Zone
	for _, z := range zones {
		plain, api := s.matchesReserved(z.label), s.matchesReserved(z.label, apiServer)
		switch {
		case plain && api:
			both |= z.zone
		case plain:
			without |= z.zone
		case api:
			only |= z.zone
		}
	}
	for _, p := range []policy.Peer{{Zone: both}, {Zone: without, APIServer: policy.Except}, {Zone: only, APIServer: policy.Only}} {
		if p.Zone != 0 {
			out = append(out, p)
		}
	}
	return out
}

// wildcard reports whether the selector has no condition at all, so that it
// matches everything.
func (s *selector) wildcard() bool { return len(s.reqs) == 0 }
