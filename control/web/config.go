package web

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
)

// Config says where the page is served.
type Config struct {
	// Listen is host:port, a loopback address unless AllowRemote is set, or
	// unix:///path for a Unix socket of mode 0600. "" for none: whoever can open
	// a loopback port of the node would see who talks to whom.
	Listen string `json:"listen"`
	// AllowRemote permits other addresses. There is no TLS and no login: put
	// something before it that has both.
	AllowRemote bool `json:"allowRemote"`
	// Hosts are names by which browsers may ask, beside localhost and loopback
	// addresses. A request for any other name is refused, so that no page of
	// somebody else can have its own name resolve to this address and read along.
	Hosts   []string `json:"hosts,omitempty"`
	Streams int      `json:"streams"` // browsers that may follow at once
}

// Default is what holds without a configuration.
func Default() Config { return Config{Streams: 16} }

const unixScheme = "unix://"

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.Streams < 1 {
		errs = append(errs, fmt.Errorf("streams %d: want 1 or more", c.Streams))
	}
	for _, h := range c.Hosts {
		if h == "" || strings.ContainsAny(h, ":/* ") {
			errs = append(errs, fmt.Errorf("hosts %q: want a name without port", h))
		}
	}
	if path, ok := strings.CutPrefix(c.Listen, unixScheme); ok {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("listen %q: want an absolute path", c.Listen))
		}
	} else if c.Listen != "" {
		host, port, err := net.SplitHostPort(c.Listen)
		switch {
		case err != nil || port == "":
			errs = append(errs, fmt.Errorf("listen %q: want host:port or unix:///path", c.Listen))
		case !c.AllowRemote && !loopback(host):
			errs = append(errs, fmt.Errorf("listen %q: want a loopback address; allowRemote permits others", c.Listen))
		}
	}
	return errors.Join(errs...)
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
