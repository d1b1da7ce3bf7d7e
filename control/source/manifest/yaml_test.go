package manifest_test

import (
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/manifest"
	"github.com/sluice-net/sluice/control/store"
)

// TestMergedKeys: what overrides a merged key is no repetition of it.
func TestMergedKeys(t *testing.T) {
	const list = `apiVersion: v1
kind: List
items:
- &first
  apiVersion: v1
  kind: Pod
  metadata: {name: x, namespace: a}
- <<: *first
  metadata: {name: x, namespace: b}
`
	src, st := open(t, folder(t, map[string]string{"f.yaml": list}))
	expect(t, st, "pod a/x", "pod b/x")
	if r := src.State().Rejections; len(r) > 0 {
		t.Errorf("rejections %+v", r)
	}
	src, st = open(t, folder(t, map[string]string{"f.yaml": list + "  kind: Pod\n  kind: Pod\n"}))
	expect(t, st)
	if r := src.State().Rejections; len(r) != 1 || !strings.Contains(r[0].Reason, "already set in map") {
		t.Errorf("rejections %+v", r)
	}
}

// TestOldBooleans: what kubectl takes for a boolean, and so refuses, is text if
// it can't be meant otherwise.
func TestOldBooleans(t *testing.T) {
	subject := func(st *store.Store, e *policy.Entity) (selected bool) {
		st.Read(func(v store.View) {
			for p := range v.AllPolicies() {
				selected = !p.Rejected && p.Selects(e)
			}
		})
		return selected
	}
	tests := []struct {
		name, text string
		want       []string
		labels     map[string]string // that the policy selects
		note       bool
	}{
		{"namespace", pod("y", "n"), []string{"pod y/n"}, nil, true},
		{"in a list", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: no, namespace: a}}\n", []string{"pod a/no"}, nil, true},
		{"label", np("a", "x", "{podSelector: {matchLabels: {pod: Y}}}"), []string{"policy a/x"}, map[string]string{"pod": "Y"}, true},
		{"value", np("a", "x", "{podSelector: {matchExpressions: [{key: a, operator: In, values: [on, off]}]}}"), []string{"policy a/x"}, map[string]string{"a": "off"}, true},
		{"another fault", np("a", "n", "{podSelector: {}, policyTypes: [X]}"), []string{"policy a/n!"}, nil, true},
		{"quoted", pod(`"y"`, "x"), []string{"pod y/x"}, nil, false},
		{"as kubectl has it", np("a", "x", "{podSelector: {matchLabels: {y: z}}}"), []string{"policy a/x"}, map[string]string{"true": "z"}, false},
		{"a boolean", "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: a}\nspec: {hostNetwork: yes}\n", []string{"pod a/x"}, nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src, st := open(t, folder(t, map[string]string{"f.yaml": tt.text}))
			expect(t, st, tt.want...)
			notes := src.State().Notes
			if got := len(notes) == 1 && strings.HasSuffix(notes[0], manifest.Quote); got != tt.note || !tt.note && notes != nil {
				t.Errorf("notes %q", notes)
			}
			if tt.labels != nil && !subject(st, &policy.Entity{Namespace: "a", Labels: tt.labels}) {
				t.Errorf("doesn't select a pod with %v", tt.labels)
			}
		})
	}
}
