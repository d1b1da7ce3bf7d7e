package kube

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/control/source/object"
)

// item is an object on its way through a Reflector, which asks it for its key,
// version and annotations and for nothing else.
type item struct {
	metav1.Object // noMeta: answers whatever else could be asked

	namespace, name string
	version         string
	end             bool // a bookmark that ends a watch-list
	uid             types.UID
	generation      int64
	condition       metav1.Condition // ours, of those kinds that have one
	object          object.Object
}

var noMeta metav1.Object = &metav1.ObjectMeta{}

func (it *item) GetNamespace() string       { return it.namespace }
func (it *item) GetName() string            { return it.name }
func (it *item) GetResourceVersion() string { return it.version }
func (it *item) GetUID() types.UID          { return it.uid }
func (it *item) GetGeneration() int64       { return it.generation }
func (it *item) DeepCopyObject() runtime.Object {
	c := *it
	return &c
}

// GetAnnotations returns what tells the end of a watch-list (KEP-3157).
func (it *item) GetAnnotations() map[string]string {
	if it.end {
		return map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	return nil
}

// GetObjectKind implements runtime.Object.
func (it *item) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// itemList is a page of a list.
type itemList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []runtime.Object
}

// DeepCopyObject implements runtime.Object.
func (l *itemList) DeepCopyObject() runtime.Object {
	c := *l
	c.Items = append([]runtime.Object(nil), l.Items...)
	return &c
}
