package control_test

import (
	"math"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control"
)

func TestWorkerCPUs(t *testing.T) {
	for list, ok := range map[string]bool{"": true, "0": true, "2-3,6": true, "3-2": false, "2-": false, "two": false, "-1": false} {
		c := control.Default()
		c.NodeName, c.WorkerCPUs = "node", list
		if err := c.Validate(); ok && err != nil || !ok && (err == nil || !strings.Contains(err.Error(), "workerCPUs \""+list+"\"")) {
			t.Errorf("%q: %v", list, err)
		}
	}
}

// TestTooMuch has a configuration ask for more than the types hold that it goes
// into: 4,294,967,296 new flows a second were no limit at all.
func TestTooMuch(t *testing.T) {
	for what, change := range map[string]func(*control.Config){
		"miss rate 4294967296":              func(c *control.Config) { c.MissRate = 1 << 32 },
		"burst 4294967297":                  func(c *control.Config) { c.MissBurst = 1<<32 + 1 },
		"flow cache 4294967360":             func(c *control.Config) { c.FlowCache = 1<<32 + 64 },
		"admit cache 4294967360":            func(c *control.Config) { c.AdmitCache = 1<<32 + 64 },
		"deny cache 4294967360":             func(c *control.Config) { c.DenyCache = 1<<32 + 64 },
		"fragments 4294967360":              func(c *control.Config) { c.Fragments = 1<<32 + 64 },
		"frames 4611686018427387904":        func(c *control.Config) { c.Frames = 1 << 62 },
		"event ring 4611686018427387904":    func(c *control.Config) { c.EventRing = 1 << 62 },
		"history 4611686018427387904":       func(c *control.Config) { c.History = 1 << 62 },
		"answer hold 2562047h47m16.854":     func(c *control.Config) { c.Names.MaxHold = math.MaxInt64 },
		"deny report 2562047h47m16.854":     func(c *control.Config) { c.DenyReport = math.MaxInt64 },
		"heartbeat timeout 2562047h47m16.8": func(c *control.Config) { c.HeartbeatTimeout = math.MaxInt64 },
	} {
		c := control.Default()
		c.NodeName = "node"
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
