package uninstall

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/sluice-net/sluice/control/server"
)

// Stay answers the probes of an agent at addr until ctx ends, as the container
// does that has cleaned its node: then its pod is ready.
func Stay(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for probes: %w", err)
	}
	mux := http.NewServeMux()
	for _, path := range []string{"/healthz", "/readyz"} {
		mux.HandleFunc(path, func(http.ResponseWriter, *http.Request) {})
	}
	err = server.Run(ctx, l, &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second})
	if err != nil {
		return fmt.Errorf("serve probes at %s: %w", addr, err)
	}
	return nil
}
