package hubbletest_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/observe"
	serve "github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/tools/lab/labtest"
)

// relay starts Hubble Relay and returns where it listens.
func relay(t *testing.T, args ...string) (addr string) {
	t.Helper()
	binary := os.Getenv("SLUICE_HUBBLE_RELAY")
	if binary == "" {
		t.Skip("SLUICE_HUBBLE_RELAY names no hubble-relay: see make test-hubble")
	}
	addr = freePort(t, "127.0.0.1")
	args = append([]string{"serve", "--listen-address", addr, "--health-listen-address", freePort(t, "127.0.0.1"), "--gops=false",
		"--retry-timeout", "500ms", "--sort-buffer-drain-timeout", "2s", "--disable-server-tls"}, args...)
	cmd := exec.Command(binary, args...)
	var log safeBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("relay:\n%s", log.String())
		}
	})
	return addr
}

// safeBuffer is a buffer that a process writes to while a test reads it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func freePort(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// ask runs the stock CLI against a relay until its answer has what is wanted, in
// any order: a relay finds its peers by and by.
func ask(t *testing.T, addr, args string, want ...string) string {
	t.Helper()
	var out []byte
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		limit, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		out, err = exec.CommandContext(limit, os.Getenv("SLUICE_HUBBLE"), append(strings.Fields(args), "--server", addr)...).CombinedOutput()
		cancel()
		if err == nil && !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(string(out), w) }) {
			return string(out)
		}
	}
	t.Errorf("%s: %v, want %q in:\n%s", args, err, want, out)
	return string(out)
}

// fleet is a node and where the others are.
type fleet struct {
	*observetest.Source
	nodes  map[string]string
	labels []string
}

func (f fleet) Nodes() map[string]string { return f.nodes }
func (f fleet) NodeLabels() []string     { return f.labels }

// shift is from the day of the records of observetest to when these tests began.
var shift = time.Now().UnixNano() - observetest.TCP(0, 1, 2, 80).TimeNs

// recent makes records that are of today, as far apart as they were: namespaces are
// listed that had flows in the last hour.
func recent(recs ...event.Record) []event.Record {
	for i := range recs {
		recs[i].TimeNs += shift
	}
	return recs
}

// The stock Hubble Relay finds the nodes by the Peer service of one of them, and
// the stock CLI has the flows of all from it: by TLS that both sides show
// certificates for, with the names that Cilium gives nodes.
func TestRelay(t *testing.T) {
	if os.Getenv("SLUICE_HUBBLE") == "" {
		t.Skip("SLUICE_HUBBLE names no hubble CLI: see make test-hubble")
	}
	ca, err := observetest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	own, ownKey, err := ca.Issue("relay", "relay.example")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(freePort(t, "127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]string{"node-1": "127.0.0.1", "node.2": "127.0.0.2", "elsewhere": "192.0.2.1"}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	sources := map[string]*observetest.Source{}
	for _, name := range []string{"node-1", "node.2"} {
		crt, key, err := ca.Issue(name, serve.TLSName(name))
		if err != nil {
			t.Fatal(err)
		}
		src, err := observetest.New(64)
		if err != nil {
			t.Fatal(err)
		}
		sources[name] = src
		observer := observe.New(src, src, 64, event.WantAll)
		cfg := serve.Config{Node: name, Version: "test", Listen: net.JoinHostPort(nodes[name], port), Streams: 16,
			Socket: t.TempDir() + "/hubble.sock", TLS: serve.TLS{Cert: crt, Key: key, ClientCA: ca.File}}
		wg.Go(func() { observer.Run(ctx) })
		wg.Go(func() {
			if err := serve.New(cfg, observer, fleet{src, nodes, []string{"zone=" + name}}).Serve(ctx); err != nil {
				t.Error(err)
			}
		})
		if name == "node-1" {
			nodes["socket"] = cfg.Socket
		}
	}
	socket := nodes["socket"]
	delete(nodes, "socket")
	addr := relay(t, "--peer-service", "unix://"+socket, "--tls-hubble-client-cert-file", own, "--tls-hubble-client-key-file", ownKey, "--tls-hubble-server-ca-files", ca.File)

	sources["node-1"].Put(recent(observetest.TCP(0, 1, 2, 80), observetest.Deny(observetest.TCP(2, 1, 3, 5432), 1, 3))...)
	sources["node.2"].Put(recent(observetest.TCP(1, 1, 2, 443))...)
	ask(t, addr, "status", "Healthcheck (via 127.0.0.1", "Ok", "Connected Nodes: 2/3", "Current/Max Flows: 3/128", "Unavailable Nodes: 1")
	ask(t, addr, "list nodes", "node-1", "node.2", "elsewhere", "Connected", "Unavailable")
	ask(t, addr, "list namespaces", "a", "b")
	out := ask(t, addr, "observe --print-node-name", "[node-1]", "[node.2]", ":80 ", ":443 ", "Policy denied DROPPED")
	if one, two, three := strings.Index(out, ":80 "), strings.Index(out, ":443 "), strings.Index(out, ":5432 "); one > two || two > three {
		t.Errorf("not by time:\n%s", out)
	}
	for args, has := range map[string][2]string{
		"observe --verdict DROPPED":        {"5432", ":443 "},
		"observe --node-name node.2":       {":443 ", ":80 "},
		"observe --node-label zone=node-1": {":80 ", ":443 "},
		"observe --last 1 --port 443":      {":443 ", ":80 "},
	} {
		if out := ask(t, addr, args, has[0]); strings.Contains(out, has[1]) {
			t.Errorf("%s: %q is in:\n%s", args, has[1], out)
		}
	}

	limit, done := context.WithTimeout(t.Context(), 60*time.Second)
	defer done()
	follow := exec.CommandContext(limit, os.Getenv("SLUICE_HUBBLE"), "observe", "-f", "-o", "jsonpb", "--server", addr)
	var got safeBuffer
	follow.Stdout = &got
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = follow.Process.Kill(); _ = follow.Wait() })
	for i := 3; limit.Err() == nil; i++ { // until it follows both
		sources["node-1"].Put(recent(observetest.TCP(i, 1, 2, 8081))...)
		sources["node.2"].Put(recent(observetest.TCP(i, 1, 2, 8082))...)
		if s := got.String(); strings.Contains(s, `"destination_port":8081`) && strings.Contains(s, `"destination_port":8082`) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("followed:\n%s", got.String())
}

// Relay on a node, with its agent's Unix socket, and real traffic.
func TestRelayOfLab(t *testing.T) {
	if os.Getenv("SLUICE_HUBBLE") == "" {
		t.Skip("SLUICE_HUBBLE names no hubble CLI: see make test-hubble")
	}
	labtest.NeedRoot(t)
	const name = "relaytest"
	if code, _, errs := labtest.Run(t, "lab", "up", "-f", "../../deploy/examples/three-tier", "--name", name, "--detach"); code != 0 {
		t.Fatal(errs)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(labtest.Binary(t), "lab", "down", "--name", name).CombinedOutput(); err != nil {
			t.Errorf("lab down: %v: %s", err, out)
		}
		labtest.Gone(t, name)
	})
	addr := relay(t, "--peer-service", fmt.Sprintf("unix:///run/sluice/lab/%s/hubble.sock", name), "--disable-client-tls")
	ask(t, addr, "status", "Connected Nodes: 1/1")
	labtest.Run(t, "lab", "exec", "--name", name, "production/frontend", "--", "timeout", "3", "bash", "-c", "exec 3<>/dev/tcp/"+database+"/5432")
	ask(t, addr, "observe --verdict DROPPED --print-policy-names", "production/frontend:", "-> production/database:5432", "EGRESS DENIED BY", "default-deny (NetworkPolicy)")
}
