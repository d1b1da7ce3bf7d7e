// Package oracle_test has Prometheus' own parsers read the dashboard and the
// alerts.
package oracle_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

func TestDashboard(t *testing.T) {
	data, err := os.ReadFile("../../deploy/grafana/sluice.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Annotations struct{ List []struct{ Expr string } }
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	// What Grafana puts in for its own variables.
	fill := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*")
	p := parser.NewParser(parser.Options{})
	n := 0
	parse := func(where, expr string) {
		n++
		if _, err := p.ParseExpr(fill.Replace(expr)); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	for _, p := range board.Panels {
		for _, q := range p.Targets {
			parse(p.Title, q.Expr)
		}
	}
	for _, a := range board.Annotations.List {
		parse("annotation", a.Expr)
	}
	if n < 30 {
		t.Errorf("only %d queries were found", n)
	}
}

func TestAlerts(t *testing.T) {
	data, err := os.ReadFile("../../deploy/alerts/sluice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		Spec map[string]any `json:"spec"`
	}
	if err := yaml.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	file, err := yaml.Marshal(object.Spec)
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(file, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.Default())
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil || len(groups.Groups) < 4 {
		t.Errorf("%+v: groups are missing", groups)
	}
}
