package control_test

import (
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
