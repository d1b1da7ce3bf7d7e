package scenario

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// churner is a running system whose rules can be changed: each even i adds a
// peer that nothing has, each odd one takes it away.
type churner interface {
	churn(ctx context.Context, i int) error
}

// churnPeer is that peer.
var churnPeer = netip.MustParseAddr("172.31.255.254")

// churnEvery is how often rules change in a workload under churn.
const churnEvery = 100 * time.Millisecond

// churning runs a workload while the system's rules change, if it has any.
func churning(inner runFunc) runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
		c, ok := base(s.Running).(churner)
		if !ok {
			return inner(ctx, s, d)
		}
		within, cancel := context.WithCancel(ctx)
		changes, failed := 0, make(chan error, 1)
		go func() {
			var err error
			for tick := time.Tick(churnEvery); err == nil; changes++ {
				select {
				case <-within.Done():
					failed <- nil
					return
				case <-tick:
					err = c.churn(ctx, changes)
				}
			}
			failed <- err
		}()
		start := time.Now()
		ms, err := inner(ctx, s, d)
		cancel()
		if bad := <-failed; err == nil && bad != nil {
			err = fmt.Errorf("change the rules: %w", bad)
		}
		return append(ms, Metric{Name: "changes", Unit: "/s", Value: float64(changes) / time.Since(start).Seconds()}), err
	}
}

// churn implements churner: the folder of manifests gets, or loses, a policy.
func (a *agent) churn(_ context.Context, i int) error {
	path := filepath.Join(a.manifests, "churn.yaml")
	if i%2 == 1 {
		return os.Remove(path)
	}
	return os.WriteFile(path, []byte(fmt.Sprintf(`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: churn, namespace: bench}
spec: {podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: %s/32}}]}]}
`, churnPeer)), 0o600)
}
