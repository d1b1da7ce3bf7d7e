package verdict_test

import (
	"testing"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/tools/verdict"
)

func TestMismatch(t *testing.T) {
	pod := &policy.Entity{Kind: policy.KindPod, Namespace: "shop", NamespaceLabels: map[string]string{"env": "dev"},
		Labels: map[string]string{"app": `we"b`, "tier": "front"}, ServiceAccount: "default"}
	one := func(op policy.Operator, key string, values ...string) []policy.Requirement {
		return []policy.Requirement{{Key: key, Operator: op, Values: values}}
	}
	tests := []struct {
		name string
		spec policy.SelectorSpec
		text string // of the selector
		why  string // it doesn't match
	}{
		{"everything", policy.SelectorSpec{}, "all pods", ""},
		{"nothing", policy.SelectorSpec{Nothing: true}, "nothing", "the selector matches nothing"},
		{"missing", policy.SelectorSpec{Labels: one(policy.In, "role", "backend")}, "pods with role=backend", "label role=backend missing"},
		{"other value", policy.SelectorSpec{Labels: one(policy.In, "tier", "backend")}, "pods with tier=backend", "label tier=front, not backend"},
		{"other values", policy.SelectorSpec{Labels: one(policy.In, "tier", "a", "b")}, "pods with tier in (a, b)", "label tier=front, not a or b"},
		{"quoted", policy.SelectorSpec{Labels: one(policy.NotIn, "app", `we"b`)}, `pods with app notin (we"b)`, `label app=we"b, which the selector excludes`},
		{"exists", policy.SelectorSpec{Labels: one(policy.Exists, "role")}, "pods with role", "label role missing"},
		{"does not exist", policy.SelectorSpec{Labels: one(policy.DoesNotExist, "tier")}, "pods with !tier", "label tier=front, which the selector excludes"},
		{"namespace", policy.SelectorSpec{Namespace: "ops"}, "all pods in namespace ops", "namespace is shop, not ops"},
		{"namespace label", policy.SelectorSpec{NamespaceLabels: one(policy.In, "env", "prod")}, "all pods in namespaces with env=prod", "namespace label env=dev, not prod"},
		{"service account", policy.SelectorSpec{ServiceAccounts: []string{"robot"}}, "all pods of service account robot", "service account is default, not robot"},
		{"node", policy.SelectorSpec{Kind: policy.KindNode, Labels: one(policy.Exists, "zone")}, "nodes with zone", "not a node"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := policy.NewSelector(tt.spec)
			if got := verdict.SelectorText(s); got != tt.text {
				t.Errorf("text: got %q, want %q", got, tt.text)
			}
			if got := verdict.Mismatch(s, pod); got != tt.why {
				t.Errorf("why: got %q, want %q", got, tt.why)
			}
			if s.Matches(pod) != (tt.why == "") {
				t.Errorf("the selector matches: %v", s.Matches(pod))
			}
		})
	}
}
