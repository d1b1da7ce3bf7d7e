package lab_test

import (
	"strings"
	"testing"

	"github.com/sluice-net/sluice/tools/lab"
)

func TestReadQueries(t *testing.T) {
	queries, err := lab.ReadQueries(strings.NewReader(`
{"src":"a/b","dst":"ip:1.2.3.4","proto":"udp","port":53,"note":"unknown fields don't matter"}

{"src":"a/b","dst":"c/d","port":80}
{"src":"a/b"}
[]
{"src":"a/b","dst":"c/d","port":"443"}
`))
	if err != nil || len(queries) != 5 {
		t.Fatalf("%d queries, %v", len(queries), err)
	}
	if q := queries[0]; q.Proto != "UDP" || q.Port != 53 || q.Src != "a/b" || q.Dst != "ip:1.2.3.4" {
		t.Errorf("first query: %+v", q)
	}
	if q := queries[1]; q.Proto != "TCP" {
		t.Errorf("protocol that is not given: %s", q.Proto)
	}
	if q := queries[4]; q.Port != 443 {
		t.Errorf("port as a string: %+v", q)
	}
}

// What is wrong with a line is said in the words of who wrote it, by its number.
func TestWrongQueries(t *testing.T) {
	for line, want := range map[string]string{
		`src=a dst=b`:                             "line 1: not a query: ",
		`[1]`:                                     "line 1: not a query: want an object, got array",
		`{"src":"a/b","dst":7,"port":80}`:         "line 1: dst: want a string, got number",
		`{"src":"a/b","dst":"a/c","port":70000}`:  `line 1: port "70000": want 1 to 65535`,
		`{"src":"a/b","dst":"a/c","port":"http"}`: `line 1: port "http": want 1 to 65535`,
		`{"src":"a/b","dst":"a/c"}`:               `line 1: port "": want 1 to 65535`,
	} {
		queries, err := lab.ReadQueries(strings.NewReader(line))
		if err != nil || len(queries) != 1 {
			t.Fatalf("%s: %d queries, %v", line, len(queries), err)
		}
		if got := queries[0].Wrong(); got == nil || !strings.HasPrefix(got.Error(), want) {
			t.Errorf("%s: %v, want %s", line, got, want)
		}
	}
}

func FuzzReadQueries(f *testing.F) {
	f.Add(`{"src":"a/b","dst":"c/d","proto":"SCTP","port":1,"want":"deny"}`)
	f.Add("\x00\n{}\n")
	f.Fuzz(func(t *testing.T, text string) {
		queries, err := lab.ReadQueries(strings.NewReader(text))
		if lines := strings.Count(text, "\n") + 1; err == nil && len(queries) > lines {
			t.Errorf("%d queries from %d lines", len(queries), lines)
		}
	})
}
