package scenario

import (
	"strings"
	"testing"
	"time"
)

func TestDisturbedBy(t *testing.T) {
	for _, c := range []struct {
		span, others, stolen time.Duration
		want                 string // "": nothing
	}{
		{200 * time.Millisecond, 0, 0, ""},
		{200 * time.Millisecond, 3 * tick, 2 * tick, ""}, // a tick or two are noise
		{200 * time.Millisecond, 4 * tick, 0, "other processes used 0.20"},
		{200 * time.Millisecond, 0, 3 * tick, "the hypervisor took 0.15"},
		{2 * time.Second, 10 * tick, 10 * tick, ""},
		{2 * time.Second, 30 * tick, 0, "other processes used 0.15"},
		{2 * time.Second, 30 * tick, 40 * tick, "the hypervisor took 0.20"},
	} {
		got := disturbedBy(c.span, c.others, c.stolen)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%v, others %v, stolen %v: got %q, want %q", c.span, c.others, c.stolen, got, c.want)
		}
	}
}

func TestTrialsHaveEnoughPackets(t *testing.T) {
	const d = 500 * time.Millisecond
	for rate, want := range map[float64]time.Duration{0: d / 4, 1e6: d / 4, 100: 2 * d, 8000: 500 * time.Millisecond} {
		if got := trialTime(rate, d); got != want {
			t.Errorf("%g packets/s: %v, want %v", rate, got, want)
		}
	}
}

func TestFoundSaysWhatTheLimitWas(t *testing.T) {
	for _, c := range []struct {
		f    Found
		cost time.Duration
		want string
	}{
		{Found{Trial: Trial{Rate: 1e6}}, 50 * time.Nanosecond, ""},
		{Found{Trial: Trial{Rate: 1e6}}, 900 * time.Nanosecond, sinkLimit},
		{Found{Trial: Trial{Rate: 1e6}, Generator: true}, 50 * time.Nanosecond, sharedLimit},
		{Found{Trial: Trial{Rate: 1e6}, Generator: true, Forced: 2, Why: "of a cat"}, 50 * time.Nanosecond, forcedLimit},
	} {
		if got := c.f.limit(c.cost); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%+v: got %q, want %q", c.f, got, c.want)
		}
	}
}
