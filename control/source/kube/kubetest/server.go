// Package kubetest starts a real kube-apiserver with its etcd for tests. Both
// are processes of their own that end with the test, also if it is killed. The
// programs come from tools/apiserver, which builds them once; SLUICE_APISERVER
// names their folder. Without it tests skip, or fail with REQUIRE_APISERVER=1.
package kubetest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what is special about a server.
type Options struct {
	// Enter, if not nil, moves the calling thread to where the processes should
	// live, such as into a network namespace.
	Enter func() error
	// Dial, if not nil, connects to there.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Args are further arguments of kube-apiserver.
	Args []string
}

// AdminToken is the token of a user who may do everything.
const AdminToken = "sluice-test-admin"

// ready bounds how long a server may take to start on a busy machine.
const ready = 2 * time.Minute

// Server is a running API server.
type Server struct {
	tb        testing.TB
	opts      Options
	programs  string
	dir       string
	etcdPort  int
	port      int
	etcd, api *process
}

// programs returns the folder of the programs.
func programs(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("SLUICE_APISERVER")
	if _, err := os.Stat(filepath.Join(dir, "kube-apiserver")); dir == "" || err != nil {
		if os.Getenv("REQUIRE_APISERVER") == "1" {
			tb.Fatal("REQUIRE_APISERVER=1, but SLUICE_APISERVER names no folder with kube-apiserver: run make test-apiserver")
		}
		tb.Skip("needs a kube-apiserver: run make test-apiserver")
	}
	return dir
}

// Start starts a server, which ends with the test.
func Start(tb testing.TB, opts Options) *Server {
	tb.Helper()
	s := &Server{tb: tb, opts: opts, programs: programs(tb)}
	if s.opts.Dial == nil {
		s.opts.Dial = (&net.Dialer{}).DialContext
	}
	dir, err := os.MkdirTemp("", "sluice-kubetest-")
	s.must(err)
	s.dir = dir
	tb.Cleanup(func() {
		s.StopAPI()
		s.etcd.stop()
		s.must(os.RemoveAll(dir))
	})
	s.writeKey()
	s.must(os.WriteFile(s.path("tokens.csv"), []byte(AdminToken+`,admin,admin,"system:masters"`+"\n"), 0o600))
	s.etcdPort, s.port = s.freePort(), s.freePort()
	peer := s.freePort()
	s.etcd = s.start("etcd", "--data-dir="+s.path("etcd"), "--unsafe-no-fsync", "--log-level=error",
		fmt.Sprintf("--listen-client-urls=http://127.0.0.1:%d", s.etcdPort), fmt.Sprintf("--advertise-client-urls=http://127.0.0.1:%d", s.etcdPort),
		fmt.Sprintf("--listen-peer-urls=http://127.0.0.1:%d", peer), fmt.Sprintf("--initial-advertise-peer-urls=http://127.0.0.1:%d", peer),
		fmt.Sprintf("--initial-cluster=default=http://127.0.0.1:%d", peer))
	s.StartAPI()
	return s
}

// StartAPI starts the API server again after StopAPI and waits until it is
// ready.
func (s *Server) StartAPI() {
	s.tb.Helper()
	s.api = s.start("kube-apiserver", append([]string{
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", s.etcdPort), "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", s.port), "--cert-dir=" + s.path("certs"), "--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + s.path("sa.key"),
		"--service-account-signing-key-file=" + s.path("sa.key"), "--authorization-mode=RBAC", "--token-auth-file=" + s.path("tokens.csv"),
		"--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none",
		"--max-requests-inflight=2000", "--max-mutating-requests-inflight=1000",
	}, s.opts.Args...)...)
	s.awaitReady()
}

// StopAPI kills the API server; etcd stays.
func (s *Server) StopAPI() {
	if s.api != nil {
		s.api.stop()
		s.api = nil
	}
}

// URL returns the address of the API.
func (s *Server) URL() string { return fmt.Sprintf("https://127.0.0.1:%d", s.port) }

// Address returns host and port of the API.
func (s *Server) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) must(err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatal(err)
	}
}

// writeKey writes the key that signs service accounts' tokens.
func (s *Server) writeKey() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	der, err := x509.MarshalECPrivateKey(key)
	s.must(err)
	s.must(os.WriteFile(s.path("sa.key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600))
}

// onThread runs f on a thread of the place where the processes live.
func (s *Server) onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		if s.opts.Enter != nil {
			runtime.LockOSThread() // for good: the thread ends with this goroutine
			if err := s.opts.Enter(); err != nil {
				done <- err
				return
			}
		}
		done <- f()
	}()
	return <-done
}

func (s *Server) freePort() int {
	var port int
	s.must(s.onThread(func() error {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		port = l.Addr().(*net.TCPAddr).Port
		return l.Close()
	}))
	return port
}

// awaitReady waits for /readyz.
func (s *Server) awaitReady() {
	s.tb.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: s.opts.Dial,
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	req, err := http.NewRequest(http.MethodGet, s.URL()+"/readyz", nil)
	s.must(err)
	req.Header.Set("Authorization", "Bearer "+AdminToken)
	for end := time.Now().Add(ready); ; time.Sleep(50 * time.Millisecond) {
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		for _, p := range []*process{s.etcd, s.api} {
			if p.ended() {
				s.tb.Fatalf("%s ended: %v\n%s", p.name, p.err, p.tail())
			}
		}
		if time.Now().After(end) {
			s.tb.Fatalf("API server is not ready after %v\n%s\n%s", ready, s.api.tail(), s.etcd.tail())
		}
	}
}

// Compact drops etcd's history up to now: older resource versions are gone.
func (s *Server) Compact() {
	s.tb.Helper()
	client := http.Client{Timeout: ready, Transport: &http.Transport{DialContext: s.opts.Dial, DisableKeepAlives: true}}
	post := func(path, body string) string {
		resp, err := client.Post(fmt.Sprintf("http://127.0.0.1:%d%s", s.etcdPort, path), "application/json", strings.NewReader(body))
		s.must(err)
		defer resp.Body.Close()
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		s.must(err)
		if resp.StatusCode != http.StatusOK {
			s.tb.Fatalf("etcd %s: %s: %s", path, resp.Status, b.String())
		}
		return b.String()
	}
	answer := post("/v3/kv/range", `{"key":"L3JlZ2lzdHJ5", "count_only":true}`)
	_, after, ok := strings.Cut(answer, `"revision":"`)
	revision, _, ok2 := strings.Cut(after, `"`)
	if !ok || !ok2 {
		s.tb.Fatalf("etcd told no revision: %s", answer)
	}
	post("/v3/kv/compaction", fmt.Sprintf(`{"revision":%q,"physical":true}`, revision))
}

// process is a child that can't outlive the test.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error
}

func (s *Server) start(program string, args ...string) *process {
	s.tb.Helper()
	p := &process{name: program, log: s.path(program + ".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	s.must(err)
	defer log.Close()
	p.cmd = exec.Command(filepath.Join(s.programs, program), args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Dir = s.dir
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the signal of a parent's death when the thread that
		// forked ends: this one stays.
		runtime.LockOSThread()
		var err error
		if s.opts.Enter != nil {
			err = s.opts.Enter()
		}
		if err == nil {
			err = p.cmd.Start()
		}
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		s.tb.Fatal(fmt.Errorf("start %s: %w", program, err))
	}
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) stop() {
	if p == nil {
		return
	}
	if err := p.cmd.Process.Kill(); err == nil || errors.Is(err, os.ErrProcessDone) {
		<-p.done
	}
}

// tail returns the end of what it had to say.
func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-4000):])
}
