package metrics

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/sluice-net/sluice/control/server"
)

// Serve serves Handler at Config.Listen until ctx ends.
func (m *Metrics) Serve(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	err = server.Run(ctx, l, &http.Server{Handler: m.Handler(), ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute})
	if err != nil {
		return fmt.Errorf("serve metrics at %s: %w", addr, err)
	}
	return nil
}
