package object_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/object"
)

// TestCaseCounts reads policies with a field of a wrong type beside fields that
// differ from their own in case only: what is closed is what they say without
// these.
func TestCaseCounts(t *testing.T) {
	const (
		np     = "networking.k8s.io/v1 NetworkPolicy"
		calico = "projectcalico.org/v3 NetworkPolicy"
		cilium = "cilium.io/v2 CiliumNetworkPolicy"
		anp    = "policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy"

		named = `"metadata":{"name":"x","namespace":"a"}`
		wrong = `"metadata":{"name":"x","namespace":"a","labels":7%s}`
		web   = `{"matchLabels":{"app":"web"}}`
		db    = `{"matchLabels":{"app":"db"}}`
		deny  = `"action":"Deny","from":[{"namespaces":{}}],"ports":7`
	)
	tests := []struct{ kind, doc, beside string }{
		{np, `{` + named + `,"spec":{"podSelector":` + web + `,"egress":7}%s}`, `,"Spec":{"podSelector":` + db + `}`},
		{np, `{` + named + `,"spec":{"podSelector":` + web + `,"egress":7%s}}`, `,"PodSelector":` + db},
		{np, `{` + named + `,"spec":{"podSelector":{"matchLabels":{"app":"web"}%s},"egress":7}}`, `,"MatchLabels":{"app":"db"}`},
		{np, `{` + named + `,"spec":{"podSelector":{},"ingress":7%s}}`, `,"policytypes":["Egress"]`},
		{np, `{` + wrong + `,"spec":{"podSelector":{}}}`, `,"Name":"y","NAMESPACE":"b"`},
		{np, `{` + wrong + `,"spec":{"podSelector":{}}}`, `,"Annotations":{"sluice.dev/audit":"true"}`},
		{calico, `{` + fmt.Sprintf(wrong, "") + `,"spec":{"selector":"app == 'web'"}%s}`, `,"Spec":{"selector":"app == 'db'"}`},
		{calico, `{` + wrong + `,"spec":{}}`, `,"Name":"y","Namespace":"b","Annotations":{"sluice.dev/audit":"true"}`},
		{cilium, `{` + fmt.Sprintf(wrong, "") + `,"spec":{"endpointSelector":` + web + `,"ingress":[{}]}%s}`, `,"Spec":{"endpointSelector":` + db + `,"ingress":[{}]}`},
		{cilium, `{` + wrong + `,"spec":{"endpointSelector":{},"ingress":[{}]}}`, `,"Name":"y","Namespace":"b","Annotations":{"sluice.dev/audit":"true"}`},
		{anp, `{` + named + `,"spec":{"priority":1,"subject":{"namespaces":` + web + `},"ingress":[{` + deny + `}]}%s}`, `,"Spec":{"priority":2,"subject":{"namespaces":` + db + `}}`},
		{anp, `{` + named + `,"spec":{"priority":1,"subject":{"namespaces":{}},"ingress":[{` + deny + `%s}]}}`, `,"Action":"Allow"`},
	}
	for _, tt := range tests {
		if got, want := closes(t, tt.kind, fmt.Sprintf(tt.doc, tt.beside)), closes(t, tt.kind, fmt.Sprintf(tt.doc, "")); got != want {
			t.Errorf("%s with %s closes\n%s\nwithout it\n%s", tt.kind, tt.beside, got, want)
		}
	}
}

// closes says what stays in force of a policy.
func closes(t *testing.T, kind, doc string) string {
	t.Helper()
	apiVersion, name, _ := strings.Cut(kind, " ")
	k, ok := object.Lookup(apiVersion, name)
	if !ok {
		t.Fatalf("%s is not known", kind)
	}
	o, err := k.Decode([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	p := o.Value.(*policy.Policy)
	if !p.Rejected {
		t.Fatalf("%s is valid", doc)
	}
	rules := func(s policy.Section) string {
		return fmt.Sprintf("%v %v %d rules", s.Applies, s.Default, len(s.Rules))
	}
	return fmt.Sprintf("%v audit %v order %v, of %s: ingress %s, egress %s", p.Origin, p.Audit, p.Order, p.Subject[0].Key(), rules(p.Ingress), rules(p.Egress))
}
