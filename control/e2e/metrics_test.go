package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/sluice-net/sluice/control"
)

const metricsAddr = "127.0.0.1:9965"

// get asks the node's metrics server.
func (n *node) get(path string) (code int, body string) {
	n.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		Dial: func(string, string) (c net.Conn, err error) {
			err = n.net.Host().Do(func() error {
				c, err = net.Dial("tcp", metricsAddr)
				return err
			})
			return c, err
		}}}
	resp, err := client.Get("http://" + metricsAddr + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(n.T, err)
	return resp.StatusCode, string(b)
}

// metric sums up the series of a metric whose labels hold all of those given.
func (n *node) metric(name string, labels ...string) float64 {
	n.Helper()
	code, body := n.get("/metrics")
	if code != http.StatusOK {
		n.Fatalf("metrics: %d %s", code, body)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(body))
	must(n.T, err)
	var sum float64
	for _, m := range families[name].GetMetric() {
		have := ""
		for _, l := range m.Label {
			have += l.GetName() + "=" + l.GetValue() + ","
		}
		fits := true
		for _, l := range labels {
			fits = fits && strings.Contains(have, l+",")
		}
		if fits {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// by says who judges packets of established flows.
func by(offload bool) string {
	if offload {
		return "kernel"
	}
	return "worker"
}

// TestMetrics compares what is exported with what packets did.
func TestMetrics(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		change := s.change
		s.change = func(c *control.Config) {
			if change != nil {
				change(c)
			}
			c.Metrics.Listen = metricsAddr
		}
		n := newPair(t, s)
		n.eventually("readiness", func() bool {
			code, _ := n.get("/readyz")
			return code == http.StatusOK
		})
		if code, body := n.get("/healthz"); code != http.StatusOK {
			t.Errorf("healthz: %d %s", code, body)
		}
		n.probeAll(all(n.friend, n.server, 80, true)...)
		n.probeAll(all(n.other, n.server, 80, false, "server")...)
		for _, m := range []struct {
			name   string
			labels []string
			least  float64
		}{
			{"sluice_packets_total", []string{"direction=egress", "verdict=allowed"}, 4},
			{"sluice_packets_total", []string{"verdict=allowed", "by=" + by(n.cfg.Offload)}, 4},
			{"sluice_bytes_total", []string{"verdict=allowed"}, 200},
			{"sluice_drops_total", []string{"reason=policy"}, 4},
			{"sluice_policy_verdicts_total", []string{"kind=NetworkPolicy", "namespace=x", "policy=server", "direction=ingress", "verdict=allowed"}, 4},
			{"sluice_policy_verdicts_total", []string{"policy=server", "verdict=denied"}, 4},
			{"sluice_policy_apply_duration_seconds", nil, 1},
			{"sluice_program_actions_total", []string{"action=steered"}, 8},
			{"sluice_endpoints", []string{"state=enforced"}, 3},
			{"sluice_worker_busy_seconds_total", nil, 1e-6},
			{"sluice_events_generated_total", nil, 8},
			{"sluice_policy_generation", nil, 1},
			{"hubble_policy_verdicts_total", []string{"action=dropped", "direction=ingress", "match=none"}, 4},
			{"hubble_drop_total", []string{"reason=POLICY_DENIED", "protocol=TCP"}, 2},
			{"hubble_flows_processed_total", []string{"type=PolicyVerdict", "verdict=FORWARDED"}, 4},
		} {
			var got float64
			n.eventually(fmt.Sprintf("%s %v of %v or more", m.name, m.labels, m.least), func() bool {
				got = n.metric(m.name, m.labels...)
				return got >= m.least
			})
		}
		generated := n.metric("sluice_events_generated_total")
		n.eventually("events are delivered or lost", func() bool {
			return n.metric("sluice_events_delivered_total")+n.metric("sluice_events_lost_total") >= generated
		})
		// A policy that goes takes its series along.
		n.remove("policy-server")
		n.eventually("the policy's series have gone", func() bool {
			return n.metric("sluice_policy_verdicts_total", "policy=server") == 0
		})
	})
}
