package connectivity_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/tools/connectivity"
)

// slow is a target where policies come into force only at the third pass, and
// some never do.
type slow struct {
	mu     sync.Mutex
	want   map[string]string
	passes int
	tries  int
	never  bool
}

func (s *slow) Settle() time.Duration { return 10 * time.Second }
func (s *slow) Close() error          { return nil }

func (s *slow) Apply(_ context.Context, policies map[string]string) error {
	s.want, s.tries = policies, 0
	return nil
}

// Try knows one policy: close-client.
func (s *slow) Try(_ context.Context, from string, to connectivity.Dest, family int) (connectivity.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	if family == 6 {
		return connectivity.Outcome{}, fmt.Errorf("%w: no IPv6", connectivity.ErrSkip)
	}
	_, closed := s.want["close-client"]
	inForce := s.tries > 40 && !s.never
	return connectivity.Outcome{Passed: !(closed && inForce && from == connectivity.Client)}, nil
}

func TestSettle(t *testing.T) {
	s := &slow{}
	r, err := connectivity.Run(t.Context(), s, []string{"egress of the client is closed"}, func(string, int, int, int) {})
	if err != nil || r.Failed != 0 || r.Passed != 10 || r.Skipped != 10 {
		t.Errorf("%v, %+v", err, r)
	}
	if s.tries != 60 {
		t.Errorf("%d attempts: want three passes of 20", s.tries)
	}
}

// A policy that never comes into force is reported, not waited for for ever.
func TestNever(t *testing.T) {
	r, err := connectivity.Run(t.Context(), neverInForce{&slow{never: true}}, []string{"egress of the client is closed"}, func(string, int, int, int) {})
	if err != nil || r.Failed != 5 {
		t.Errorf("%v, %+v", err, r)
	}
}

type neverInForce struct{ *slow }

func (neverInForce) Settle() time.Duration { return time.Second }

// What is put into policies for the Service are its addresses.
func TestManifest(t *testing.T) {
	text := connectivity.Manifest("x", "p", "podSelector: {}\negress:\n- to: [SERVICE]\n", []netip.Addr{netip.MustParseAddr("10.96.0.7"), netip.MustParseAddr("fd00::7")})
	var o struct {
		Metadata struct{ Name, Namespace string }
		Spec     struct {
			Egress []struct {
				To []struct{ IPBlock struct{ CIDR string } }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	to := o.Spec.Egress[0].To
	if o.Metadata.Namespace != "x" || len(to) != 2 || to[0].IPBlock.CIDR != "10.96.0.7/32" || to[1].IPBlock.CIDR != "fd00::7/128" {
		t.Errorf("%s", text)
	}
}

// What runs in pods: a server that echoes, a client that says what it saw.
func TestServeAndDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if a := connectivity.Dial(t.Context(), addr, true); a.Passed || !strings.Contains(a.Seen, "refused") {
		t.Errorf("without a server: %+v", a)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- connectivity.Serve(ctx, addr) }()
	var a connectivity.Attempt
	for end := time.Now().Add(20 * time.Second); !a.Passed && time.Now().Before(end); {
		a = connectivity.Dial(t.Context(), addr, true)
	}
	if !a.Passed {
		t.Errorf("with a server: %+v", a)
	}
	if a := connectivity.Dial(t.Context(), addr, false); !a.Passed {
		t.Errorf("only connecting: %+v", a)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("server: %v", err)
	}
}

// Without a name server of a family there is nothing to try.
func TestResolveSkips(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("search x\nnameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if a := connectivity.Resolve(t.Context(), conf, "name", 6); a.Skip == "" || a.Passed {
		t.Errorf("%+v", a)
	}
}
