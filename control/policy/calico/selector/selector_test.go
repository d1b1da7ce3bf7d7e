package selector_test

import (
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/policy/calico/selector"
)

func TestSelectors(t *testing.T) {
	labels := selector.Map{"app": "web", "k8s.io/x": "", "in": "y"}
	tests := []struct {
		text, canonical string
		want            bool
	}{
		{"", "all()", true},
		{" \t", "all()", true},
		{"global()", "global()", true},
		{"app == 'web'", `app == "web"`, true},
		{"app=='web'", `app == "web"`, true},
		{"absent == ''", `absent == ""`, false},
		{"absent != 'x'", `absent != "x"`, true},
		{"absent not in {'x'}", `absent not in {"x"}`, true},
		{"absent notin{}", `absent not in {}`, true},
		{"app in {}", `app in {}`, false},
		{"app in {'z','web','web',}", `app in {"web", "z"}`, true},
		{"absent contains ''", `absent contains ""`, false},
		{"app contains 'e' && app starts with 'w' && app endswith 'b'", `(app contains "e" && app starts with "w" && app ends with "b")`, true},
		{"has( k8s.io/x )", "has(k8s.io/x)", true},
		{"!!!has(app)", "!has(app)", false},
		{"has(a) || has(app) && has(b)", "(has(a) || (has(app) && has(b)))", false},
		{"(has(a) || has(app)) && !has(b)", "((has(a) || has(app)) && !has(b))", true},
		{`app != 'we"b'`, `app != 'we"b'`, true},
		{"in in {'y'}", `in in {"y"}`, true},
	}
	for _, tt := range tests {
		s, err := selector.Parse(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if s.String() != tt.canonical || s.Matches(labels) != tt.want {
			t.Errorf("%q: got %s, %v, want %s, %v", tt.text, s, s.Matches(labels), tt.canonical, tt.want)
		}
	}
	for _, text := range []string{"app", "app ==", "app = 'x'", "app == x", "== 'x'", "has()", "has(a", "all", "all(", "a & b",
		"app in 'x'", "app in {'x'", "app in {,}", "app not 'x'", "app not in x", "(has(a)", "has(a))", "has(a) has(b)", "!", "'x'",
		"app\n== 'x'", "app == 'x", "ä == 'x'", "a starts 'x'", strings.Repeat("x", 513) + " == ''", strings.Repeat("(", 20_000)} {
		if s, err := selector.Parse(text); err == nil {
			t.Errorf("%q: got %s, want an error", text, s)
		}
	}
}

func TestDerived(t *testing.T) {
	parse := func(text string) *selector.Selector {
		s, err := selector.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if got := parse("has(a) && !(b in {'x'} || all())").Prefixed("p.").String(); got != `(has(p.a) && !(p.b in {"x"} || all()))` {
		t.Errorf("prefixed: %s", got)
	}
	if got := parse("all() || !global()").ReplaceAll(parse("has(x)"), parse("!has(x)")).String(); got != "(has(x) || !!has(x))" {
		t.Errorf("replaced: %s", got)
	}
	for text, want := range map[string]string{
		"a == 'x'": "x", "a in {'y','x'} && has(b)": "x y", "a == 'x' || a in {'z'}": "x z",
		"a == 'x' || has(b)": "-", "!(a == 'x')": "-", "a != 'x'": "-", "b == 'x'": "-",
	} {
		values, ok := parse(text).Values("a")
		got := strings.Join(values, " ")
		if !ok {
			got = "-"
		}
		if got != want {
			t.Errorf("%s: values of a: %s, want %s", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("(has(a) && b in {'x'}) || !(a == 'x')", "x")
	f.Fuzz(func(t *testing.T, text, value string) {
		s, err := selector.Parse(text)
		if err != nil {
			return
		}
		again, err := selector.Parse(s.String())
		if err != nil {
			t.Fatalf("%q: canonical %s: %v", text, s, err)
		}
		for _, l := range []selector.Map{nil, {"a": value}, {"b": value}} {
			if s.Matches(l) != again.Matches(l) {
				t.Fatalf("%q and its canonical form %s differ on %v", text, s, l)
			}
		}
	})
}
