package metrics_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/control/metrics"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// exported are the metrics that an agent exports: name → label → values.
type exported map[string]map[string]map[string]bool

// scraped labels every series with these.
var scraped = []string{"instance", "job"}

// exports asks an agent of which every series is there.
func exports(t *testing.T) exported {
	f := newFake()
	f.hits[f.policy("a", 0)] = stat.Hit{Allowed: 1, Denied: 1, Audited: 1}
	m, o, src := newMetrics(t, f, metrics.Default())
	m.Applied(time.Second)
	go o.Run(t.Context())
	audit := observetest.TCP(3, 1, 2, 80)
	audit.Audit, audit.AuditIngress, audit.Ingress = true, true, 2
	src.Put(observetest.TCP(0, 1, 2, 80), observetest.Deny(observetest.TCP(2, 1, 3, 5432), 0, 3), audit)
	for o.Stats().Read < 3 && t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := exported{}
	for _, fam := range families {
		names := []string{fam.GetName()}
		labels := map[string]map[string]bool{}
		if fam.Metric[0].Histogram != nil {
			names = []string{fam.GetName() + "_bucket", fam.GetName() + "_sum", fam.GetName() + "_count"}
			labels["le"] = nil
		}
		for _, m := range fam.Metric {
			for _, l := range m.Label {
				if labels[l.GetName()] == nil {
					labels[l.GetName()] = map[string]bool{}
				}
				labels[l.GetName()][l.GetValue()] = true
			}
		}
		for _, n := range names {
			out[n] = labels
		}
	}
	return out
}

var (
	tokenRE = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'[^']*'|\$?[a-zA-Z_:][a-zA-Z0-9_:]*|[0-9.]+[a-z]*|=~|!~|!=|==|>=|<=|\S`)
	identRE = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	// Words of the language that are no names.
	wordRE = regexp.MustCompile(`^(and|or|unless|bool|offset|atan2|inf|nan)$`)
	// Words before a list of labels.
	listRE = regexp.MustCompile(`^(by|without|on|ignoring|group_left|group_right)$`)
)

// check says what of a query the agent does not export, and which metrics it
// names. More than names it does not judge: see tools/promql-oracle.
func (e exported) check(query string) (names []string, faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	tokens := tokenRE.FindAllString(query, -1)
	at := func(i int) string {
		if i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	var listed []string
	for i := 0; i < len(tokens); i++ {
		tok := tokens[i]
		switch {
		case tok == "[": // a range
			for at(i) != "]" && i < len(tokens) {
				i++
			}
		case listRE.MatchString(tok) && at(i+1) == "(":
			for i += 2; at(i) != ")" && i < len(tokens); i++ {
				if at(i) != "," {
					listed = append(listed, at(i))
				}
			}
		case !identRE.MatchString(tok) || wordRE.MatchString(tok) || at(i+1) == "(" || listRE.MatchString(tok):
		case e[tok] == nil && strings.Contains(tok, ":"): // a recording rule
		case e[tok] == nil && at(i+1) != "by" && at(i+1) != "without":
			fault("no metric %s", tok)
			names = append(names, tok)
		case e[tok] != nil:
			names = append(names, tok)
			if at(i+1) != "{" {
				continue
			}
			for i += 2; at(i) != "}" && i < len(tokens); i++ {
				label, op, value := at(i), at(i+1), strings.Trim(at(i+2), `"'`)
				if label == "," {
					continue
				}
				i += 2
				e.checkLabel(tok, label, op, value, fault)
			}
		}
	}
	for _, l := range listed {
		if !slices.Contains(scraped, l) && !slices.ContainsFunc(names, func(n string) bool { _, ok := e[n][l]; return ok }) {
			fault("none of %v has a label %s", names, l)
		}
	}
	return names, faults
}

func (e exported) checkLabel(metric, label, op, value string, fault func(string, ...any)) {
	if slices.Contains(scraped, label) {
		return
	}
	values, ok := e[metric][label]
	if !ok {
		fault("%s has no label %s", metric, label)
		return
	}
	want := []string{value}
	if op == "=~" || op == "!~" {
		want = strings.Split(value, "|")
	}
	for _, v := range want {
		if !values[v] && identRE.MatchString(strings.ReplaceAll(v, "-", "_")) {
			fault("%s has no %s %q, but %v", metric, label, v, slices.Sorted(maps.Keys(values)))
		}
	}
}

// board is what is looked at of a dashboard.
type board struct {
	Panels []struct {
		Title, Description, Type string
		ID                       int
		GridPos                  struct{ X, Y, W, H int }
		Targets                  []struct{ Expr, LegendFormat string }
	}
	Templating struct {
		List []struct {
			Name  string
			Query any
		}
	}
	Annotations struct{ List []struct{ Expr string } }
}

var legendRE = regexp.MustCompile(`{{\s*(\w+)\s*}}`)

// TestDashboard holds every query of the dashboard against what is exported.
func TestDashboard(t *testing.T) {
	e := exports(t)
	data, err := os.ReadFile(filepath.Join("..", "..", "deploy", "grafana", "sluice.json"))
	if err != nil {
		t.Fatal(err)
	}
	var b board
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	check := func(where, query string) {
		names, faults := e.check(query)
		for _, f := range faults {
			t.Errorf("%s: %s\n\tin %s", where, f, query)
		}
		for _, n := range names {
			used[n] = true
		}
		if len(names) == 0 {
			t.Errorf("%s: %q names no metric", where, query)
		}
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range b.Panels {
		if ids[p.ID] {
			t.Errorf("%s: ID %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d (%s) has no title, description or query", p.ID, p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s overlaps %q or leaves the grid", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, q := range p.Targets {
			check(p.Title, q.Expr)
			names, _ := e.check(q.Expr)
			for _, m := range legendRE.FindAllStringSubmatch(q.LegendFormat, -1) {
				if !slices.Contains(scraped, m[1]) && !slices.ContainsFunc(names, func(n string) bool { _, ok := e[n][m[1]]; return ok }) {
					t.Errorf("%s: the legend's %s is no label", p.Title, m[1])
				}
			}
		}
	}
	for _, a := range b.Annotations.List {
		check("annotation", a.Expr)
	}
	if len(used) < 25 {
		t.Errorf("only %d metrics are looked at: is the dashboard read at all?", len(used))
	}
	valuesRE := regexp.MustCompile(`label_values\((\w+), (\w+)\)`)
	for _, v := range b.Templating.List {
		if m := valuesRE.FindStringSubmatch(fmt.Sprint(v.Query)); m != nil && e[m[1]] == nil {
			t.Errorf("variable %s: no metric %s", v.Name, m[1])
		}
	}
}

// TestAlerts does the same for the alerts.
func TestAlerts(t *testing.T) {
	e := exports(t)
	data, err := os.ReadFile(filepath.Join("..", "..", "deploy", "alerts", "sluice.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Kind string `json:"kind"`
		Spec struct {
			Groups []struct {
				Name  string `json:"name"`
				Rules []struct {
					Alert, Record, Expr, For string
					Labels, Annotations      map[string]string
				} `json:"rules"`
			} `json:"groups"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(data, &rules); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, g := range rules.Spec.Groups {
		for _, r := range g.Rules {
			name := r.Alert + r.Record
			if name == "" || seen[name] {
				t.Errorf("%s: name %q is missing or taken", g.Name, name)
			}
			seen[name] = true
			if _, faults := e.check(r.Expr); len(faults) > 0 {
				t.Errorf("%s: %v", name, faults)
			}
			if r.Alert == "" {
				continue
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" && s != "info" {
				t.Errorf("%s: severity %q", name, s)
			}
			if r.Annotations["summary"] == "" || r.For == "" {
				t.Errorf("%s: no summary, or no time for which it holds", name)
			}
		}
	}
	if rules.Kind != "PrometheusRule" || len(seen) < 10 {
		t.Errorf("%s with %d rules", rules.Kind, len(seen))
	}
}

// TestCheck sees that a wrong name, label or value would be found.
func TestCheck(t *testing.T) {
	e := exports(t)
	for query, want := range map[string]string{
		`sum by (reason) (rate(sluice_drops_total{instance=~"$i",reason!="policy"}[5m]))`:                           "",
		`histogram_quantile(.9, sum by (le) (rate(sluice_policy_apply_duration_seconds_bucket[$__rate_interval])))`: "",
		`sluice_ready == 0 and on (instance) sluice_healthy > bool 0`:                                               "",
		`rate(sluice_drop_total[5m])`:                  "no metric sluice_drop_total",
		`sluice_drops_total{cause="policy"}`:           "has no label cause",
		`sluice_drops_total{reason="polices"}`:         `no reason "polices"`,
		`sluice_drops_total{reason=~"policy|spoofed"}`: `no reason "spoofed"`,
		`sum by (pod) (sluice_drops_total)`:            "a label pod",
		`sum(sluice_drops_total) by (verdict)`:         "a label verdict",
		`sluice_policy_apply_duration_seconds`:         "no metric",
	} {
		_, faults := e.check(query)
		if got := strings.Join(faults, "; "); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}
