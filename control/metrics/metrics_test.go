package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/sluice-net/sluice/control/metrics"
	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// fake is a dataplane and an agent with every counter at a number of its own.
type fake struct {
	stats  dataplane.Stats
	err    error
	hits   map[rule.CauseID]stat.Hit
	causes []rule.Cause
	gone   map[string]bool // policies by name
	state  metrics.State
	counts int // calls of Maps
}

func (f *fake) Stats() (dataplane.Stats, error)  { return f.stats, f.err }
func (f *fake) Config() dataplane.Config         { return dataplane.Default() }
func (f *fake) State() metrics.State             { return f.state }
func (f *fake) Cause(id rule.CauseID) rule.Cause { return f.causes[id] }
func (f *fake) Hits(visit func(rule.CauseID, stat.Hit)) {
	for id, h := range f.hits {
		visit(id, h)
	}
}

func (f *fake) Maps() ([]xdpprog.MapUsage, error) {
	f.counts++
	return []xdpprog.MapUsage{{Name: "flows", Max: 100, Entries: 7}}, nil
}

func (f *fake) InForce(keys []metrics.PolicyKey) []metrics.PolicyKey {
	return slices.DeleteFunc(slices.Clone(keys), func(k metrics.PolicyKey) bool { return f.gone[k.Name] })
}

func newFake() *fake {
	f := &fake{gone: map[string]bool{}, hits: map[rule.CauseID]stat.Hit{}, causes: []rule.Cause{{}}}
	for w := range 2 {
		ws := dataplane.WorkerStats{Port: "sluice1.0", Mode: "copy", Alive: w == 0, BeatAge: time.Millisecond,
			Flows: 10 + w, FlowsCap: 100, Lost: 3, LostDeny: 4}
		for id := range stat.NumIDs {
			ws.Counts.Counts[id] = 1000*uint64(w+1) + uint64(id)
		}
		ws.Rings.RxRingFull = 5
		f.stats.Workers = append(f.stats.Workers, ws)
	}
	for r := range f.stats.Drops {
		f.stats.Drops[r] = uint64(r) * 10
	}
	for c := range f.stats.Programs {
		f.stats.Programs[c] = uint64(c) + 1
	}
	for i := range f.stats.Kernel {
		f.stats.Kernel[i] = xdpprog.Traffic{Packets: 10 * uint64(i+1), Bytes: 1000 * uint64(i+1)}
	}
	f.stats.Written, f.stats.Lost = 100, 14
	f.state = metrics.State{Node: "n1", Version: "v1", Generation: 42, Enforced: 3, Isolated: 1, Pending: 2, Failures: 9,
		Rejected: map[string]int{"NetworkPolicy": 2}, NotReady: "2 pods have no link yet",
		Watches: []metrics.Watch{
			{Resource: "pods", Synced: true, Healthy: true, Current: time.Now(), Objects: 12},
			{Resource: "nodes", Synced: true, Current: time.Now().Add(-time.Hour), Objects: 2},
			{Resource: "namespaces"},
		}}
	return f
}

func (f *fake) policy(name string, rules ...int) rule.CauseID {
	var c rule.Cause
	for _, r := range rules {
		c.Refs = append(c.Refs, rule.PolicyRef{Kind: "NetworkPolicy", Namespace: "ns", Name: name, Rule: r, Direction: rule.Ingress})
	}
	f.causes = append(f.causes, c)
	return rule.CauseID(len(f.causes) - 1)
}

func newMetrics(t *testing.T, f *fake, cfg metrics.Config) (*metrics.Metrics, *observe.Observer, *observetest.Source) {
	t.Helper()
	src, err := observetest.New(1 << 10)
	if err != nil {
		t.Fatal(err)
	}
	o := observe.New(src, src, 1<<10, event.WantAll)
	return metrics.New(cfg, f, f, o), o, src
}

// scrape asks for the metrics as a Prometheus of the given format does.
func scrape(t *testing.T, m *metrics.Metrics, accept string) (body, contentType string) {
	t.Helper()
	srv := httptest.NewServer(m.Handler())
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v\n%s", resp.Status, err, b)
	}
	return string(b), resp.Header.Get("Content-Type")
}

// parse reads the text format back into series: name{label="value",…} → value.
func parse(t *testing.T, body string) map[string]float64 {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	out := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			out[name+labels(m)] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
		}
	}
	return out
}

func labels(m *dto.Metric) string {
	var ls []string
	for _, l := range m.Label {
		ls = append(ls, l.GetName()+"="+l.GetValue())
	}
	if len(ls) == 0 {
		return ""
	}
	slices.Sort(ls)
	return "{" + strings.Join(ls, ",") + "}"
}

func (f *fake) expect(t *testing.T, m *metrics.Metrics, want map[string]float64) {
	t.Helper()
	body, _ := scrape(t, m, "text/plain")
	got := parse(t, body)
	for series, v := range want {
		if g, ok := got[series]; !ok || g != v {
			t.Errorf("%s is %v (there: %v), want %v", series, g, ok, v)
		}
	}
}

func TestValues(t *testing.T) {
	f := newFake()
	m, _, _ := newMetrics(t, f, metrics.Default())
	m.Applied(250 * time.Millisecond)
	f.expect(t, m, map[string]float64{
		"sluice_packets_total{by=kernel,direction=ingress,verdict=denied}": 40,
		"sluice_bytes_total{by=kernel,direction=egress,verdict=denied}":    3000,
		"sluice_packets_total{by=worker,direction=egress,verdict=denied}":  3000 + 2*float64(stat.EgressDeniedPackets),
		"sluice_bytes_total{by=worker,direction=ingress,verdict=allowed}":  3000 + 2*float64(stat.IngressAllowedBytes),
		"sluice_drops_total{reason=spoofed-mac}":                           float64(stat.SpoofedMAC) * 10,
		"sluice_program_actions_total{action=steered}":                     float64(xdpprog.CountSteered) + 1,
		"sluice_flow_table_entries{worker=1}":                              11,
		"sluice_flow_table_capacity{worker=1}":                             100,
		"sluice_kernel_map_entries{map=flows}":                             7,
		"sluice_kernel_map_capacity{map=flows}":                            100,
		"sluice_worker_alive{worker=0}":                                    1,
		"sluice_worker_alive{worker=1}":                                    0,
		"sluice_worker_busy_seconds_total{worker=0}":                       (1000 + float64(stat.BusyNs)) / 1e9,
		"sluice_xsk_events_total{event=rx_ring_full,worker=1}":             5,
		"sluice_events_generated_total":                                    114,
		"sluice_events_lost_total{ring=denials}":                           8,
		"sluice_policy_generation":                                         42,
		"sluice_policy_apply_failures_total":                               9,
		"sluice_policy_apply_duration_seconds":                             .25,
		"sluice_endpoints{state=pending}":                                  2,
		"sluice_policies_rejected{kind=NetworkPolicy}":                     2,
		"sluice_watch_staleness_seconds{resource=pods}":                    0,
		"sluice_watch_synced{resource=namespaces}":                         0,
		"sluice_ready":   0,
		"sluice_healthy": 1,
	})
	body, _ := scrape(t, m, "text/plain")
	if got := parse(t, body); got["sluice_watch_staleness_seconds{resource=nodes}"] < 3600 {
		t.Errorf("nodes are stale for %v s, want an hour", got["sluice_watch_staleness_seconds{resource=nodes}"])
	}
	if strings.Contains(body, `sluice_watch_staleness_seconds{resource="namespaces"}`) {
		t.Error("what was never known is said to be stale")
	}
	if f.counts != 1 {
		t.Errorf("maps were counted %d times by two scrapes in a moment", f.counts)
	}
}

// Every counter of a worker is exported by some name.
func TestAllCounters(t *testing.T) {
	f := newFake()
	m, _, _ := newMetrics(t, f, metrics.Default())
	before, _ := scrape(t, m, "text/plain")
	series := parse(t, before)
	for id := range stat.NumIDs {
		if id == stat.EventsLost {
			continue // by ring
		}
		f.stats.Workers[0].Counts.Counts[id] += 1 << 40
		after, _ := scrape(t, m, "text/plain")
		changed := 0
		for name, v := range parse(t, after) {
			if strings.HasPrefix(name, "sluice_") && !strings.Contains(name, "staleness") && v != series[name] {
				changed++
			}
		}
		if changed != 1 {
			t.Errorf("counter %v shows in %d series, want one", id, changed)
		}
		f.stats.Workers[0].Counts.Counts[id] -= 1 << 40
	}
}

func TestPolicySeriesAreBounded(t *testing.T) {
	f := newFake()
	m, _, _ := newMetrics(t, f, metrics.Config{Policies: 2})
	a, b, c := f.policy("a", 0), f.policy("b", 0), f.policy("c", 0)
	both := f.policy("a", rule.DefaultRule)
	f.causes[both].Refs = append(f.causes[both].Refs, rule.PolicyRef{Kind: "NetworkPolicy", Namespace: "ns", Name: "b", Rule: rule.DefaultRule})
	f.causes = append(f.causes, rule.Cause{Text: "own node"})
	f.hits[a], f.hits[b], f.hits[c] = stat.Hit{Allowed: 30, Audited: 1}, stat.Hit{Denied: 20}, stat.Hit{Allowed: 10}
	f.hits[rule.CauseID(len(f.causes)-1)] = stat.Hit{Allowed: 5}
	series := func(name, verdict string) string {
		return "sluice_policy_verdicts_total{direction=ingress,kind=NetworkPolicy,namespace=ns,policy=" + name + ",verdict=" + verdict + "}"
	}
	const others = "sluice_policy_verdicts_total{direction=ingress,kind=,namespace=,policy=other,verdict=allowed}"
	f.expect(t, m, map[string]float64{
		series("a", "allowed"): 30, series("a", "audited"): 1, series("b", "denied"): 20, others: 10,
		"sluice_policy_verdicts_total{direction=ingress,kind=builtin,namespace=,policy=own node,verdict=allowed}": 5,
	})
	// What isolates together counts for each of them.
	f.hits[both] = stat.Hit{Denied: 7}
	f.hits[c] = stat.Hit{Allowed: 11}
	f.expect(t, m, map[string]float64{series("a", "denied"): 7, series("b", "denied"): 27, others: 11})
	// A policy that goes leaves its place; nobody's counter goes back.
	f.gone["b"] = true
	f.hits[c] = stat.Hit{Allowed: 13}
	f.expect(t, m, map[string]float64{series("c", "allowed"): 2, others: 11, series("a", "allowed"): 30})
	body, _ := scrape(t, m, "text/plain")
	if strings.Contains(body, `policy="b"`) {
		t.Error("a policy that has gone has a series still")
	}
}

// A thousand policies make as many series as are allowed, and none is lost.
func TestManyPolicies(t *testing.T) {
	f := newFake()
	const limit, all = 50, 1000
	m, _, _ := newMetrics(t, f, metrics.Config{Policies: limit})
	for i := range all {
		f.hits[f.policy(fmt.Sprint("p", i), 0)] = stat.Hit{Allowed: uint64(i + 1)}
	}
	var sum float64
	n := 0
	body, _ := scrape(t, m, "text/plain")
	for name, v := range parse(t, body) {
		if strings.HasPrefix(name, "sluice_policy_verdicts_total") {
			n++
			sum += v
		}
	}
	if n != limit+1 || sum != all*(all+1)/2 {
		t.Errorf("%d series that sum up to %v, want %d and %d", n, sum, limit+1, all*(all+1)/2)
	}
}

func TestHubble(t *testing.T) {
	f := newFake()
	m, o, src := newMetrics(t, f, metrics.Default())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go o.Run(ctx)
	deny := observetest.Deny(observetest.TCP(2, 1, 3, 5432), 0, 3)
	deny.Suppressed = 9
	src.Put(observetest.TCP(0, 1, 2, 80), observetest.TCP(1, 0, 2, 80), deny)
	for o.Stats().Read < 3 && t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	f.expect(t, m, map[string]float64{
		// From pod to pod there is a verdict a direction, from outside one.
		"hubble_flows_processed_total{protocol=TCP,subtype=,type=PolicyVerdict,verdict=FORWARDED}": 3,
		"hubble_flows_processed_total{protocol=TCP,subtype=,type=PolicyVerdict,verdict=DROPPED}":   1,
		"hubble_flows_processed_total{protocol=TCP,subtype=,type=Drop,verdict=DROPPED}":            1,
		"hubble_policy_verdicts_total{action=forwarded,direction=ingress,match=all}":               2,
		"hubble_policy_verdicts_total{action=dropped,direction=ingress,match=none}":                1,
		"hubble_drop_total{protocol=TCP,reason=POLICY_DENIED}":                                     10,
		"hubble_lost_events_total{source=PERF_EVENT_RING_BUFFER}":                                  0,
		"sluice_events_delivered_total":                                                            3,
	})
}

func TestUnreadableDataplane(t *testing.T) {
	f := newFake()
	f.err = errors.New("read counter 3: gone")
	m, _, _ := newMetrics(t, f, metrics.Default())
	body, _ := scrape(t, m, "text/plain")
	if got := parse(t, body); got["sluice_policy_generation"] != 42 {
		t.Error("what can be read is not served because something can't")
	}
}

// TestLint holds the metrics to Prometheus' rules and to OpenMetrics' syntax.
func TestLint(t *testing.T) {
	f := newFake()
	f.hits[f.policy("a", 0)] = stat.Hit{Allowed: 1}
	m, _, _ := newMetrics(t, f, metrics.Default())
	m.Applied(time.Second)
	problems, err := testutil.GatherAndLint(m.Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "go_") && !strings.HasPrefix(p.Metric, "process_") { // not ours
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	body, contentType := scrape(t, m, "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(contentType, "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("%s, not OpenMetrics", contentType)
	}
	if problems, err := promlint.New(strings.NewReader(mustText(t, m))).Lint(); err != nil || len(problems) > 0 {
		for _, p := range problems {
			if strings.HasPrefix(p.Metric, "sluice_") {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "# UNIT") || !strings.HasPrefix(line, "sluice_") {
			continue
		}
		for _, pod := range []string{"pod=", "ip=", "address="} {
			if strings.Contains(line, "{"+pod) || strings.Contains(line, ","+pod) {
				t.Errorf("labelled with what is unbounded: %s", line)
			}
		}
	}
}

func mustText(t *testing.T, m *metrics.Metrics) string {
	body, _ := scrape(t, m, "text/plain")
	return body
}

func TestHealth(t *testing.T) {
	f := newFake()
	m, _, _ := newMetrics(t, f, metrics.Default())
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := get("/healthz"); code != 200 || body != "healthy\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	if code, body := get("/readyz"); code != 503 || !strings.Contains(body, "2 pods") {
		t.Errorf("readyz: %d %q", code, body)
	}
	f.state.NotReady, f.state.NotHealthy = "", "worker 0 hangs"
	if code, _ := get("/readyz"); code != 200 {
		t.Errorf("readyz: %d", code)
	}
	if code, body := get("/healthz"); code != 503 || !strings.Contains(body, "hangs") {
		t.Errorf("healthz: %d %q", code, body)
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  metrics.Config
		want string
	}{
		{metrics.Default(), ""},
		{metrics.Config{Listen: ":9965"}, ""},
		{metrics.Config{Listen: "9965"}, `listen "9965": want host:port`},
		{metrics.Config{Listen: "127.0.0.1:"}, "want host:port"},
		{metrics.Config{Policies: -1}, "policies -1: want 0 or more"},
	} {
		err := c.cfg.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}
