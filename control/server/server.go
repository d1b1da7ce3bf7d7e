// Package server runs the agent's HTTP servers: its API, its metrics and its page
// come and go alike.
package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// lastAnswers is how long requests may go on that are under way at the end.
const lastAnswers = time.Second

// maxHeaderBytes bounds what a client may say before it asks.
const maxHeaderBytes = 1 << 14

// Run serves at l, which it closes, until ctx ends; so do then the contexts of
// requests. What answers them may go away once it returns: no request outlives
// it, but of a client that doesn't read.
func Run(ctx context.Context, l net.Listener, srv *http.Server) error {
	srv.MaxHeaderBytes = maxHeaderBytes
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
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
		if !stop() {
			<-ended
		}
		return err
	}
	<-ended
	return nil
}
