package connectivity

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// What pods of a cluster do: Serve is their main program, Dial and Resolve are
// executed in them.

// Attempt is what became of a connection that was tried in a pod.
type Attempt struct {
	Passed bool   `json:"passed"`
	Seen   string `json:"seen"`
	Skip   string `json:"skip,omitempty"` // why it can't be tried
}

// dialPatience is long enough for a SYN to be sent a second and a third time.
const dialPatience = 4 * time.Second

// Serve echoes what TCP clients send, until ctx ends.
func Serve(ctx context.Context, listen string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue // that connection broke before it was accepted
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Minute)) // nobody's bytes are kept for longer
			_, _ = io.Copy(c, c)
		}()
	}
}

// Dial opens a TCP connection; where echo is set, what is sent must come back.
func Dial(ctx context.Context, to string, echo bool) Attempt {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return Attempt{Seen: err.Error()}
	}
	defer c.Close()
	if !echo {
		return Attempt{Passed: true, Seen: "connected"}
	}
	sent := []byte(rand.Text())
	got := make([]byte, len(sent))
	_ = c.SetDeadline(time.Now().Add(dialPatience))
	if _, err := c.Write(sent); err != nil {
		return Attempt{Seen: "connected, but: " + err.Error()}
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != string(sent) {
		return Attempt{Seen: fmt.Sprintf("connected, but nothing came back: %v", err)}
	}
	return Attempt{Passed: true, Seen: "answered"}
}

// Resolve asks a name server of that family, of those in a resolv.conf, for a
// name. An answer that there is no such name is an answer.
func Resolve(ctx context.Context, conf, name string, family int) Attempt {
	server, err := nameServer(conf, family)
	if err != nil {
		return Attempt{Skip: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, net.JoinHostPort(server.String(), "53"))
	}}
	addrs, err := r.LookupHost(ctx, name)
	var de *net.DNSError
	switch {
	case err == nil:
		return Attempt{Passed: true, Seen: "resolved to " + strings.Join(addrs, ", ")}
	case errors.As(err, &de) && de.IsNotFound:
		return Attempt{Passed: true, Seen: "answered: no such name"}
	}
	return Attempt{Seen: err.Error()}
}

func nameServer(conf string, family int) (netip.Addr, error) {
	f, err := os.Open(conf)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read name servers: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && a.Is4() == (family == 4) {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s names no name server with an IPv%d address", conf, family)
}
