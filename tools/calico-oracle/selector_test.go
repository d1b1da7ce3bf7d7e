// Package oracle_test compares package selector with the parser that Calico
// itself uses.
package oracle_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/projectcalico/calico/libcalico-go/lib/selector/parser"

	"github.com/sluice-net/sluice/control/policy/calico/selector"
)

// words are what random selectors are strung together from: tokens, parts of
// tokens, and what looks like one.
var words = []string{
	"a", "b", "app", "k8s.io/name", "in", "not", "notin", "not in", "has(a)", "has( b )", "has(", "has(a", "all()", "all( )", "all (", "all(",
	"global()", "contains", "starts with", "startswith", "starts", "with", "ends with", "endswith", "ends  with", "==", "=", "!=", "!", "!!", "&&", "&",
	"||", "|", "(", ")", "{", "}", ",", `"x"`, `'x'`, `"y"`, `''`, `'x"y'`, `"x'y"`, `"`, `'`, " ", "\t", "\n", "{'x'}", "{'x', \"y\"}", "{'y','x','x',}", "{}",
	"a == 'x'", "b != 'y'", "a in {'x','y'}", "b not in {'x'}", "app contains 'pp'", "a starts with 'x'", "b ends with 'y'", "a in{'x'}", "a=='x'",
	"ä", "-", "0", "a.b", "hash(a)", "allx()", "all", "global", "has", "inx",
}

var values = []string{"", "x", "y", "xy", "app", `x"y`, "in"}

func randomSelector(r *rand.Rand) string {
	if r.IntN(2) == 0 {
		return expression(r, 3)
	}
	var b strings.Builder
	for range r.IntN(10) {
		b.WriteString(words[r.IntN(len(words))])
		if r.IntN(3) > 0 {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// expression is mostly valid.
func expression(r *rand.Rand, depth int) string {
	if depth == 0 || r.IntN(4) == 0 {
		label := []string{"a", "b", "app", "k8s.io/name"}[r.IntN(4)]
		value := func() string {
			v := values[r.IntN(len(values))]
			if strings.Contains(v, `"`) || r.IntN(2) == 0 {
				return "'" + v + "'"
			}
			return `"` + v + `"`
		}
		set := func() string {
			var out []string
			for range r.IntN(4) {
				out = append(out, value())
			}
			return "{" + strings.Join(out, ",") + "}"
		}
		switch r.IntN(10) {
		case 0:
			return "has(" + label + ")"
		case 1:
			return "all()"
		case 2:
			return "global()"
		case 3:
			return label + " in " + set()
		case 4:
			return label + " not in " + set()
		default:
			return label + []string{" == ", " != ", " contains ", " starts with ", " ends with "}[r.IntN(5)] + value()
		}
	}
	var out []string
	for range 1 + r.IntN(3) {
		x := expression(r, depth-1)
		if r.IntN(3) == 0 {
			x = "(" + x + ")"
		}
		out = append(out, strings.Repeat("!", max(0, r.IntN(5)-2))+x)
	}
	return strings.Join(out, []string{" && ", " || ", "||", "&&"}[r.IntN(4)])
}

func randomLabels(r *rand.Rand) map[string]string {
	out := map[string]string{}
	for _, k := range []string{"a", "b", "app", "k8s.io/name"} {
		if r.IntN(2) == 0 {
			out[k] = values[r.IntN(len(values))]
		}
	}
	return out
}

func compare(t *testing.T, text string, sets []map[string]string) bool {
	t.Helper()
	want, wantErr := parser.Parse(text)
	got, err := selector.Parse(text)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%q: error %v, Calico's %v", text, err, wantErr)
	}
	if err != nil {
		return false
	}
	if got.String() != want.String() {
		t.Fatalf("%q: canonical %s, Calico's %s", text, got, want)
	}
	for _, labels := range sets {
		if g, w := got.Matches(selector.Map(labels)), want.Evaluate(labels); g != w {
			t.Fatalf("%q on %v: %v, Calico's %v", text, labels, g, w)
		}
	}
	again, err := selector.Parse(got.String())
	if err != nil || again.String() != got.String() && !strings.ContainsAny(text, "!(") {
		t.Fatalf("%q: its canonical form %s reads as %v, %v", text, got, again, err)
	}
	return true
}

func TestSelectors(t *testing.T) {
	valid := 0
	const rounds = 200_000
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 8))
		sets := make([]map[string]string, 6)
		for i := range sets {
			sets[i] = randomLabels(r)
		}
		if compare(t, randomSelector(r), sets) {
			valid++
		}
	}
	if valid < rounds/4 || valid > rounds*9/10 {
		t.Errorf("%d of %d selectors were valid", valid, rounds)
	}
}

func FuzzSelector(f *testing.F) {
	for _, w := range words {
		f.Add(w, "x", "y")
	}
	f.Add("(has(a) && b in {'x'}) || !(a == 'x')", "x", "y")
	f.Add(strings.Repeat("a", 513)+" == 'x'", "", "")
	f.Fuzz(func(t *testing.T, text, a, b string) {
		if strings.Count(text, "(") > 5000 {
			t.Skip("nested deeper than package selector allows")
		}
		compare(t, text, []map[string]string{nil, {"a": a}, {"b": b}, {"a": a, "b": b, "app": a}})
	})
}
