package metrics

import (
	"errors"
	"fmt"
	"net"
)

// Config says where metrics are served, and how many series there may be.
type Config struct {
	// Listen is the host:port of a plain HTTP server with /metrics, /healthz and
	// /readyz; "" for none. It is off by default: the names of policies and the
	// traffic of a node are nobody's business who merely reaches its address, and
	// the same paths are served on the agent's Unix socket in any case.
	Listen string `json:"listen"`
	// Policies is how many policies have series of their own; the others share
	// one. A policy makes up to six series.
	Policies int `json:"policies"`
	// Hubble adds the metrics that boards made for Hubble read.
	Hubble bool `json:"hubble"`
}

// Default is what holds without a configuration.
func Default() Config { return Config{Policies: 500, Hubble: true} }

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.Listen != "" {
		if _, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("listen %q: want host:port", c.Listen))
		}
	}
	if c.Policies < 0 {
		errs = append(errs, fmt.Errorf("policies %d: want 0 or more", c.Policies))
	}
	return errors.Join(errs...)
}
