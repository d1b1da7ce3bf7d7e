package control_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control"
)

const page = "../deploy/docs/configuration.md"

var rowRE = regexp.MustCompile("^\\| `([a-zA-Z.]+)` \\|([^|]*)\\| .+ \\|$")

// TestConfigPage compares the page that describes agent.yaml with the fields that
// there are, and their defaults.
func TestConfigPage(t *testing.T) {
	f, err := os.Open(page)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	described := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if m := rowRE.FindStringSubmatch(s.Text()); m != nil {
			if _, twice := described[m[1]]; twice {
				t.Errorf("%s is described twice", m[1])
			}
			described[m[1]] = strings.TrimSpace(m[2])
		} else if strings.HasPrefix(s.Text(), "| `") {
			t.Errorf("not a row of the table: %s", s.Text())
		}
	}
	fields := map[string]string{}
	leaves(t, "", reflect.ValueOf(control.Default()), fields)
	if len(fields) < 30 {
		t.Fatalf("%d fields", len(fields))
	}
	for name, value := range fields {
		got, ok := described[name]
		switch {
		case !ok:
			t.Errorf("%s is not described in %s; its default is %s", name, page, value)
		case name != "nodeName" && got != value:
			t.Errorf("%s: the page has the default %q, the code %q", name, got, value)
		}
		delete(described, name)
	}
	for name := range described {
		t.Errorf("%s is described, but there is no such field", name)
	}
}

// leaves lists fields by their paths, with their values as the page writes them.
func leaves(t *testing.T, path string, v reflect.Value, out map[string]string) {
	for i := range v.NumField() {
		tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if tag == "" || tag == "-" {
			t.Errorf("%s%s has no name in YAML", path, v.Type().Field(i).Name)
			continue
		}
		field := v.Field(i)
		if field.Kind() == reflect.Struct {
			leaves(t, path+tag+".", field, out)
			continue
		}
		data, err := json.Marshal(field.Interface())
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Trim(string(data), `"`)
		switch {
		case text == "" || text == "null":
			text = ""
		case field.Kind() == reflect.Slice:
			var quoted []string
			for j := range field.Len() {
				quoted = append(quoted, fmt.Sprintf("`%v`", field.Index(j)))
			}
			text = strings.Join(quoted, ", ")
		default:
			text = "`" + text + "`"
		}
		out[path+tag] = text
	}
}
