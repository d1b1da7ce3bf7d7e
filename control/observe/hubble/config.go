package hubble

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
)

// Config says where and as whom the API is served.
type Config struct {
	Node    string // name of the node
	Version string // of Sluice
	Socket  string // path of the Unix socket; "" for none
	Listen  string // host:port for TCP; "" for none
	TLS     TLS    // of TCP
	Streams int    // that may be open at once, over all clients
}

// TLS names the files of the TCP server's identity, in PEM. They are read anew
// for each connection when they have changed.
type TLS struct {
	Cert     string `json:"cert,omitempty"`
	Key      string `json:"key,omitempty"`
	ClientCA string `json:"clientCA,omitempty"` // if set, clients must show a certificate of it
	// ServerName is the name in Cert by which Relay is to expect this node and the
	// others; "" for TLSName of each.
	ServerName string `json:"serverName,omitempty"`
}

// DefaultStreams is how many streams may be open at once.
const DefaultStreams = 1024

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.Socket != "" && !filepath.IsAbs(c.Socket) {
		errs = append(errs, fmt.Errorf("socket %q: want an absolute path", c.Socket))
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		errs = append(errs, errors.New("tls: want both of cert and key, or none"))
	}
	if c.TLS.ClientCA != "" && c.TLS.Cert == "" {
		errs = append(errs, errors.New("tls: clientCA without cert and key"))
	}
	if c.Streams < 1 {
		errs = append(errs, fmt.Errorf("streams %d: want 1 or more", c.Streams))
	}
	if c.Listen == "" {
		return errors.Join(errs...)
	}
	host, _, err := net.SplitHostPort(c.Listen)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("listen %q: want host:port", c.Listen))
	case c.TLS.Cert == "" && !loopback(host):
		errs = append(errs, fmt.Errorf("listen %q: without TLS only a loopback address is served", c.Listen))
	}
	return errors.Join(errs...)
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
