package hubble_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
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

// authority makes certificates.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.sign(t, template, "ca")
	return a
}

// issue writes NAME.crt and NAME.key for a DNS name.
func (a *authority) issue(t *testing.T, name, dns string) (crt, key string) {
	t.Helper()
	a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: dns}, DNSNames: []string{dns},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, name)
	return filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
}

func (a *authority) sign(t *testing.T, template *x509.Certificate, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.n++
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(a.n), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(a.dir, name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
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
	crt, key := ca.issue(t, "server", "node.example")
	cfg := hubble.Config{Node: "node-1", Version: "test", Listen: freePort(t), Streams: 8,
		TLS: hubble.TLS{Cert: crt, Key: key, ClientCA: filepath.Join(ca.dir, "ca.crt"), ServerName: "node.example"}}
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
	conf := func(roots *authority, serverName string, identity *authority) credentials.TransportCredentials {
		c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: serverName}
		c.RootCAs.AddCert(roots.cert)
		if identity != nil {
			crt, key := identity.issue(t, "client", "client.example")
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
	fresh, freshKey := next.issue(t, "server", "renewed.example")
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
