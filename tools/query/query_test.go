package query_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/tools/query"
)

func TestLines(t *testing.T) {
	var got []string
	err := query.Lines(strings.NewReader("a\n\n  b \n"), func(line []byte, n int) { got = append(got, string(line)+string(rune('0'+n))) })
	if err != nil || strings.Join(got, " ") != "a1 b3" {
		t.Errorf("%q, %v", got, err)
	}
	if err := query.Lines(strings.NewReader(strings.Repeat("x", 2<<20)), func([]byte, int) {}); err == nil {
		t.Error("a line without end is taken")
	}
}

func TestFault(t *testing.T) {
	type Query struct {
		Src string `json:"src"`
	}
	for line, want := range map[string]string{
		`{"src":"a"}`: "",
		`{"src":1}`:   "src: want a string, got number",
		`[]`:          "not a query: want an object, got array",
		`{`:           "not a query: unexpected end of JSON input",
	} {
		var plain Query
		var embeds struct{ Query }
		for _, in := range []any{&plain, &embeds} {
			got := ""
			if err := query.Fault(json.Unmarshal([]byte(line), in)); err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("%s into %T: %q, want %q", line, in, got, want)
			}
		}
	}
}
