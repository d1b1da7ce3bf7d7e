// Package object turns objects of the Kubernetes API into Sluice's own types
// and writes those into the store. Its table of kinds serves all sources:
// whoever adds a policy language adds its kinds there, and manifests as well as
// clusters are read in it.
//
// It holds no state and starts nothing. What can't be understood is never
// dropped in silence: it is rejected with a reason, and the front-ends say what
// stays closed meanwhile.
package object

import (
	"fmt"
	"regexp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/calico"
	"github.com/sluice-net/sluice/control/policy/cilium"
	"github.com/sluice-net/sluice/control/store"
)

// Object is one object in Sluice's types.
type Object struct {
	Origin policy.Origin
	// Value is what Put writes: nil if only the name of the object counts.
	Value any
	// Illegible: a field has a wrong type and nothing could be made of it. What
	// was known of the object before should stay.
	Illegible  bool
	Rejections []policy.Rejection // without Source
	Unknown    []string           // fields that the kind doesn't have, and that change nothing
}

// Kind knows how to read one kind of object.
type Kind struct {
	Name       string // Origin.Kind
	Namespaced bool
	decode     func(doc []byte) (Object, error)
	salvage    salvager
}

// Decode reads one object in JSON. An error says that not even its name is
// legible.
func (k Kind) Decode(doc []byte) (Object, error) { return k.decode(doc) }

// Closed returns what of a policy in JSON that is refused because of cause stays
// closed; nil if nothing does.
func (k Kind) Closed(doc []byte, cause error) *policy.Policy {
	if k.salvage == nil {
		return nil
	}
	p, _ := k.salvage(doc, cause)
	if p.Staged {
		return nil
	}
	return p
}

// salvager makes the most of an object whose fields have wrong types.
type salvager func(doc []byte, cause error) (*policy.Policy, []policy.Rejection)

// conversion makes a value of an object; beside it there is the document that
// the object was decoded from, and the fields of its spec that the kind doesn't
// have.
type conversion[P any] func(obj P, doc []byte, unknown field.ErrorList) (any, []policy.Rejection)

// read makes a Kind from how one is converted. salvage may be nil.
func read[T any, P interface {
	*T
	metav1.Object
}](kind string, namespaced bool, convert conversion[P], salvage salvager) Kind {
	return Kind{Name: kind, Namespaced: namespaced, salvage: salvage, decode: func(doc []byte) (Object, error) {
		obj := P(new(T))
		strict, err := kjson.UnmarshalStrict(doc, obj)
		if err != nil {
			return wrongType(kind, namespaced, doc, err, salvage)
		}
		if namespaced && obj.GetNamespace() == "" {
			obj.SetNamespace(metav1.NamespaceDefault)
		} else if !namespaced {
			obj.SetNamespace("")
		}
		o := Object{Origin: policy.Origin{Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName()}}
		o.Value, o.Rejections = convert(obj, doc, unknownInSpec(strict))
		_, isPolicy := o.Value.(*policy.Policy)
		for _, s := range strict {
			if !isPolicy || !unknownField.MatchString(s.Error()) { // else it is among the Rejections
				o.Unknown = append(o.Unknown, s.Error())
			}
		}
		return o, nil
	}}
}

var unknownField = regexp.MustCompile(`^unknown field "(spec\..*)"$`)

// unknownInSpec picks the fields of a spec out of what a strict decoder found.
func unknownInSpec(strict []error) (out field.ErrorList) {
	for _, err := range strict {
		if m := unknownField.FindStringSubmatch(err.Error()); m != nil {
			out = append(out, &field.Error{Type: field.ErrorTypeForbidden, Field: m[1], Detail: policy.UnknownField})
		}
	}
	return out
}

// wrongType reads an object that has a field of a wrong type.
func wrongType(kind string, namespaced bool, doc []byte, cause error, salvage salvager) (Object, error) {
	if salvage != nil {
		p, rejections := salvage(doc, cause)
		return Object{Origin: p.Origin, Value: p, Rejections: rejections}, nil
	}
	var named struct {
		Metadata struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"metadata"`
	}
	if kjson.UnmarshalCaseSensitivePreserveInts(doc, &named) != nil || named.Metadata.Name == "" {
		return Object{}, cause
	}
	o := Object{Origin: policy.Origin{Kind: kind, Name: named.Metadata.Name}, Illegible: true}
	if namespaced {
		o.Origin.Namespace = named.Metadata.Namespace
		if o.Origin.Namespace == "" {
			o.Origin.Namespace = metav1.NamespaceDefault
		}
	}
	o.Rejections = []policy.Rejection{{Object: o.Origin.String(), Reason: cause.Error(),
		Effect: "its last valid version stays, if there is one"}}
	return o, nil
}

// Put writes the value of an Object.
func Put(tx *store.Tx, value any) {
	switch v := value.(type) {
	case nil:
	case *store.Namespace:
		tx.SetNamespace(v)
	case *store.Node:
		tx.SetNode(v)
	case *store.Pod:
		tx.SetPod(v)
	case *store.Service:
		tx.SetService(v)
	case *store.EndpointSlice:
		tx.SetEndpointSlice(v)
	case *store.Group:
		tx.SetGroup(v)
	case *store.Account:
		tx.SetAccount(v)
	case *store.Tier:
		tx.SetTier(v)
	case *store.NetworkSet:
		tx.SetNetworkSet(v)
	case *policy.Policy:
		tx.SetPolicy(v)
	default:
		panic(fmt.Sprintf("object: no place in the store for %T", value))
	}
}

// Remove removes what Put wrote for the object of that name.
func Remove(tx *store.Tx, o policy.Origin) {
	switch o.Kind {
	case "Namespace":
		tx.DeleteNamespace(o.Name)
	case "Node":
		tx.DeleteNode(o.Name)
	case "Pod":
		tx.DeletePod(store.Key{Namespace: o.Namespace, Name: o.Name})
	case "Service":
		tx.DeleteService(store.Key{Namespace: o.Namespace, Name: o.Name})
	case "EndpointSlice":
		tx.DeleteEndpointSlice(store.Key{Namespace: o.Namespace, Name: o.Name})
	case cilium.GroupKind:
		tx.DeleteGroup(o.Name)
	case "ServiceAccount":
		tx.DeleteAccount(store.Key{Namespace: o.Namespace, Name: o.Name})
	case calico.TierKind:
		tx.DeleteTier(calico.TierName(o.Name))
	case calico.SetKind, calico.GlobalSetKind:
		tx.DeleteNetworkSet(store.Key{Namespace: o.Namespace, Name: o.Name})
	case calico.HostEndpointKind:
	default:
		tx.DeletePolicy(o)
	}
}
