package oracle_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	crds "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/client/crds/v2"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/control/policy/cilium"
)

// schema is what an API server checks before Cilium's agent sees an object.
type schema struct{ v validation.SchemaValidator }

var schemas = sync.OnceValues(func() (map[string]schema, error) {
	out := map[string]schema{}
	for kind, file := range map[string]string{
		cilium.Kind: "ciliumnetworkpolicies.yaml", cilium.ClusterwideKind: "ciliumclusterwidenetworkpolicies.yaml",
	} {
		raw, err := crds.EmbedFS.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(raw, &crd); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		var props apiextensions.JSONSchemaProps
		v1 := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v1, &props, nil); err != nil {
			return nil, err
		}
		v, _, err := validation.NewSchemaValidator(&props)
		if err != nil {
			return nil, err
		}
		out[kind] = schema{v}
	}
	return out, nil
})

func schemaOf(kind string) schema {
	all, err := schemas()
	if err != nil {
		panic(err)
	}
	return all[kind]
}

func (s schema) validate(raw []byte) error {
	var o any
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	var errs []error
	for _, e := range validation.ValidateCustomResource(nil, o, s.v) {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}
