package hubbletest_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/observe"
	serve "github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/event"
)

// The stock CLI by TCP and TLS, where server and client show certificates.
func TestStockCLIByTLS(t *testing.T) {
	if os.Getenv("SLUICE_HUBBLE") == "" {
		t.Skip("SLUICE_HUBBLE names no hubble CLI: see make test-hubble")
	}
	ca, err := observetest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	crt, key, err := ca.Issue("server", "node-1.example")
	if err != nil {
		t.Fatal(err)
	}
	own, ownKey, err := ca.Issue("client", "client.example")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	src, err := observetest.New(64)
	if err != nil {
		t.Fatal(err)
	}
	observer := observe.New(src, src, 64, event.WantAll)
	cfg := serve.Config{Node: "node-1", Version: "test", Listen: addr, Streams: 8, TLS: serve.TLS{Cert: crt, Key: key, ClientCA: ca.File, ServerName: "node-1.example"}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go observer.Run(ctx)
	go func() { done <- serve.New(cfg, observer, src).Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	src.Put(recent(observetest.TCP(0, 1, 2, 80), observetest.Deny(observetest.TCP(1, 1, 3, 5432), 1, 3))...)
	run := func(args ...string) (string, error) {
		limit, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(limit, os.Getenv("SLUICE_HUBBLE"), append(args, "--server", "tls://"+addr, "--tls-ca-cert-files", ca.File)...).CombinedOutput()
		return string(out), err
	}
	trusted := []string{"--tls-server-name", "node-1.example", "--tls-client-cert-file", own, "--tls-client-key-file", ownKey}
	for args, want := range map[string][]string{
		"status":          {"Healthcheck", "Ok", "Current/Max Flows: 2/64"},
		"list nodes":      {"node-1", "Connected"},
		"observe":         {"a/client:", "-> b/web:80", "DENIED", "Policy denied DROPPED"},
		"list namespaces": {"a", "b"},
	} {
		var out string
		var err error
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) { // until it serves
			if out, err = run(append(strings.Fields(args), trusted...)...); err == nil {
				break
			}
		}
		if missing := slices.IndexFunc(want, func(s string) bool { return !strings.Contains(out, s) }); err != nil || missing >= 0 {
			t.Errorf("%s: %v, want %v:\n%s", args, err, want, out)
		}
	}
	for name, args := range map[string][]string{
		"without a certificate": {"status", "--tls-server-name", "node-1.example"},
		"another name":          {"status", "--tls-server-name", "node-2.example", "--tls-client-cert-file", own, "--tls-client-key-file", ownKey},
	} {
		if out, err := run(args...); err == nil {
			t.Errorf("%s: served: %s", name, out)
		}
	}
}
