package control_test

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control"
)

// schema is what is used of JSON Schema.
type schema struct {
	Type       string
	Enum       []any
	Properties map[string]schema
	Additional any `json:"additionalProperties"`
}

// TestChartSchema compares the fields that the chart takes for its config with those
// that there are: a field that the agent would refuse is refused by helm, before
// any node is touched.
func TestChartSchema(t *testing.T) {
	data, err := os.ReadFile("../deploy/chart/sluice/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var chart schema
	if err := json.Unmarshal(data, &chart); err != nil {
		t.Fatal(err)
	}
	// Those are the chart's own business.
	compareSchema(t, "", chart.Properties["config"], reflect.ValueOf(control.Default()), "nodeName", "manifests", "reportNamespace")
}

func compareSchema(t *testing.T, path string, s schema, v reflect.Value, without ...string) {
	t.Helper()
	if s.Additional != false {
		t.Errorf("%s: fields that there are not are taken", path)
	}
	kinds := map[reflect.Kind]string{reflect.Bool: "boolean", reflect.Int: "integer", reflect.String: "string", reflect.Slice: "array",
		reflect.Struct: "object", reflect.Int64: "string"} // a Duration
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		got, ok := s.Properties[name]
		delete(s.Properties, name)
		if slices.Contains(without, name) {
			if ok {
				t.Errorf("%s%s: not for the chart's users", path, name)
			}
			continue
		}
		if want := kinds[v.Field(i).Kind()]; !ok || got.Type != want && got.Enum == nil {
			t.Errorf("%s%s: schema has %+v, want type %q", path, name, got, want)
			continue
		}
		if v.Field(i).Kind() == reflect.Struct {
			compareSchema(t, path+name+".", got, v.Field(i))
		}
	}
	for name := range s.Properties {
		t.Errorf("%s%s: there is no such field", path, name)
	}
}
