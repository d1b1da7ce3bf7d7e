package hubble_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/event"
)

func newAuthority(t *testing.T) *observetest.Authority {
	t.Helper()
	a, err := observetest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *observetest.Authority, name, dns string) (crt, key string) {
	t.Helper()
	crt, key, err := a.Issue(name, dns)
	if err != nil {
		t.Fatal(err)
	}
	return crt, key
}

// freePort returns a loopback address that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// On TCP a client must trust the server, and the server the client, by
// certificates that are looked at anew for each connection.
func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	crt, key := issue(t, ca, "server", "node.example")
	cfg := hubble.Config{Node: "node-1", Version: "test", Listen: freePort(t), Streams: 8,
		TLS: hubble.TLS{Cert: crt, Key: key, ClientCA: ca.File, ServerName: "node.example"}}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	src, err := observetest.New(64)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- hubble.New(cfg, observe.New(src, src, 64, event.WantAll), src).Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	ask := func(creds credentials.TransportCredentials, patience time.Duration) error {
		conn, err := grpc.NewClient(cfg.Listen, grpc.WithTransportCredentials(creds))
		if err != nil {
			return err
		}
		defer conn.Close()
		limit, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err = observerpb.NewObserverClient(conn).ServerStatus(limit, &observerpb.ServerStatusRequest{}, grpc.WaitForReady(patience > time.Second))
		return err
	}
	conf := func(roots *observetest.Authority, serverName string, identity *observetest.Authority) credentials.TransportCredentials {
		c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: serverName}
		c.RootCAs.AddCert(roots.Cert)
		if identity != nil {
			crt, key := issue(t, identity, "client", "client.example")
			pair, err := tls.LoadX509KeyPair(crt, key)
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		return credentials.NewTLS(c)
	}
	if err := ask(conf(ca, "node.example", ca), 20*time.Second); err != nil {
		t.Fatalf("a client that is trusted: %v", err)
	}
	for name, creds := range map[string]credentials.TransportCredentials{
		"no certificate": conf(ca, "node.example", nil), "another's certificate": conf(ca, "node.example", other),
		"another name": conf(ca, "node-2.example", ca), "another authority": conf(other, "node.example", ca), "no TLS": insecure.NewCredentials(),
	} {
		if err := ask(creds, time.Second); err == nil {
			t.Errorf("%s: served", name)
		}
	}
	// A new certificate holds from the next connection on; a broken file does not.
	next := newAuthority(t)
	fresh, freshKey := issue(t, next, "server", "renewed.example")
	replace := func(to, from string) {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		if err == nil {
			err = os.Chtimes(to, time.Time{}, time.Now().Add(time.Minute))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(crt, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ask(conf(ca, "node.example", ca), 20*time.Second); err != nil {
		t.Errorf("while the file is broken: %v", err)
	}
	replace(key, freshKey)
	replace(crt, fresh)
	if err := ask(conf(next, "renewed.example", ca), 20*time.Second); err != nil {
		t.Errorf("renewed: %v", err)
	}
}
