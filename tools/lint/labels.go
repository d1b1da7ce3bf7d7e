package lint

import (
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// labels finds labels that the API would not take: no selector can name them,
// so that a policy which is meant for them goes past them.
func (l *linter) labels() {
	check := func(object string, labels map[string]string) {
		for _, err := range metavalidation.ValidateLabels(labels, field.NewPath("metadata", "labels")) {
			l.add(Error, CheckInvalid, object, err.Field, err.ErrorBody()+": no selector can be written for it")
		}
	}
	for name := range l.view.Namespaces() {
		if ns := l.view.Namespace(name); ns != nil {
			check("Namespace "+name, ns.Labels)
		}
	}
	for p := range l.view.Pods() {
		check("Pod "+p.Key().String(), p.Labels)
	}
	for n := range l.view.Nodes() {
		check("Node "+n.Name, n.Labels)
	}
}
