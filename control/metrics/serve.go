package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// lastAnswers is how long requests may take that are under way at the end.
const lastAnswers = time.Second

// Serve serves Handler at Config.Listen until ctx ends.
func (m *Metrics) Serve(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	srv := &http.Server{Handler: m.Handler(), ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 14}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		wait, cancel := context.WithTimeout(context.Background(), lastAnswers)
		defer cancel()
		if err := srv.Shutdown(wait); err != nil {
			_ = srv.Close()
		}
	})
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve metrics at %s: %w", addr, err)
	}
	<-ended
	return nil
}
