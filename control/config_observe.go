package control

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/dataplane/event"
)

// Events says which events the history keeps. Whoever follows flows gets what
// they ask for besides; what nobody asks for is not generated.
type Events string

// What Events may be.
const (
	EventsAll    Events = "all"
	EventsDenied Events = "denied"
	EventsNone   Events = "none"
)

func (e Events) interest() event.Interest {
	switch e {
	case EventsAll:
		return event.WantAll
	case EventsDenied:
		return event.WantDenied
	}
	return 0
}

// Hubble says where Hubble's API is served.
type Hubble struct {
	Socket  string     `json:"socket"`  // path of a Unix socket, mode 0600; "" for none
	Listen  string     `json:"listen"`  // host:port; without TLS a loopback address. "" for none
	TLS     hubble.TLS `json:"tls"`     // files, in PEM
	Streams int        `json:"streams"` // open at once, over all clients
}

func (c Config) hubble() hubble.Config {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	return hubble.Config{Node: c.NodeName, Version: version, Socket: c.Hubble.Socket, Listen: c.Hubble.Listen,
		TLS: c.Hubble.TLS, Streams: c.Hubble.Streams}
}

// serveRetry is how soon an address that can't be listened at is tried again.
const serveRetry = 5 * time.Second

// serveHubble serves until ctx ends. That it can't is no reason not to enforce.
func (a *Agent) serveHubble(ctx context.Context, s *hubble.Server) {
	for ctx.Err() == nil {
		err := s.Serve(ctx)
		if ctx.Err() != nil {
			return
		}
		a.log.Error("flows are not served", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(serveRetry):
		}
	}
}
