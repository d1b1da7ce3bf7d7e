package lint

import (
	"fmt"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// objects finds what the API would not take of what policies are about: names,
// addresses, and labels that no selector can name, so that a policy which is
// meant for them goes past them.
func (l *linter) objects() {
	for name := range l.view.Namespaces() {
		if ns := l.view.Namespace(name); ns != nil {
			l.named("Namespace "+name, "metadata.name", name, apivalidation.NameIsDNSLabel)
			l.labels("Namespace "+name, ns.Labels)
		}
	}
	for n := range l.view.Nodes() {
		l.named("Node "+n.Name, "metadata.name", n.Name, apivalidation.NameIsDNSSubdomain)
		l.labels("Node "+n.Name, n.Labels)
	}
	for p := range l.view.Pods() {
		object := "Pod " + p.Key().String()
		l.named(object, "metadata.name", p.Name, apivalidation.NameIsDNSSubdomain)
		l.named(object, "metadata.namespace", p.Namespace, apivalidation.NameIsDNSLabel)
		l.labels(object, p.Labels)
		for _, a := range p.Addrs() {
			if !a.IsGlobalUnicast() {
				l.add(Error, CheckInvalid, object, "status.podIPs", fmt.Sprintf("Invalid value: %q: no pod can be reached at it", a))
			}
		}
	}
}

func (l *linter) named(object, at, name string, faults apivalidation.ValidateNameFunc) {
	if list := faults(name, false); len(list) > 0 {
		l.add(Error, CheckInvalid, object, at, fmt.Sprintf("Invalid value: %q: %s", name, strings.Join(list, ", ")))
	}
}

func (l *linter) labels(object string, labels map[string]string) {
	for _, err := range metavalidation.ValidateLabels(labels, field.NewPath("metadata", "labels")) {
		l.add(Error, CheckInvalid, object, err.Field, err.ErrorBody()+": no selector can be written for it")
	}
}
