package e2e_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
)

const bulkBytes = 64 << 20

// TestBulk moves random bytes and compares their digest at the other end, in
// both shapes, modes and MTUs, and sees that nothing changed inside the pods,
// but for TSO while they are heard on their own links.
func TestBulk(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			everyKind(t, func(t *testing.T, s setup) {
				s.mtu = mtu
				n := newPair(t, s)
				// Before the agent knew of it, the pod's link was as it is in others.
				fresh, err := netlab.CreateNamespace(n.net.Host().Name() + "-fresh")
				must(t, err)
				t.Cleanup(func() { must(t, fresh.Close()); must(t, netlab.DeleteNamespace(fresh.Name())) })
				n.run(fresh, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer")
				family := 4
				if s.shape == netlab.Bridge {
					family = 6
				}
				n.bulk(n.friend, n.server, family)
				unchanged := func(segments bool) {
					t.Helper()
					for _, p := range []*pod{n.friend, n.server} {
						got, want := n.features(p.Namespace(), segments), n.features(fresh, segments)
						if got != want {
							t.Errorf("%s: offload features differ from those of an untouched link:\n%s\nwant\n%s", p.name, got, want)
						}
					}
				}
				unchanged(n.cfg.Offload)
				if !n.cfg.Offload { // XDP on their links is gone with the agent
					n.signal(unix.SIGTERM)
					unchanged(true)
				}
			})
		})
	}
}

// features are the offload features of eth0, as ethtool lists them, with or
// without those by which the kernel leaves segmentation to the link.
func (n *node) features(ns *netlab.Namespace, segments bool) (list string) {
	n.Helper()
	for line := range strings.Lines(n.run(ns, "ethtool", "-k", "eth0")) {
		if segments || !strings.Contains(line, "segmentation") && !strings.Contains(line, "gso-list") {
			list += line
		}
	}
	return list
}

// bulk sends a pseudo-random stream one way and compares digests.
func (n *node) bulk(from, to *pod, family int) {
	n.Helper()
	ap := at(to.addr(family), 8080)
	var l net.Listener
	must(n.T, to.Namespace().Do(func() (err error) {
		l, err = net.Listen("tcp", ap.String())
		return err
	}))
	defer l.Close()
	n.apply("bulk", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress: [{ports: [{port: 8080}]}]")
	type arrived struct {
		sum  [32]byte
		size int64
		err  error
	}
	got := make(chan arrived, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- arrived{err: err}
			return
		}
		defer c.Close()
		h := sha256.New()
		size, err := io.Copy(h, c)
		got <- arrived{[32]byte(h.Sum(nil)), size, err}
	}()
	conn, err := dial(from.Namespace(), at(from.addr(family), n.port()), ap)
	must(n.T, err)
	defer conn.Close()
	random := io.LimitReader(rand.NewChaCha8([32]byte{byte(family)}), bulkBytes)
	h := sha256.New()
	_, err = io.Copy(struct{ io.Writer }{conn}, io.TeeReader(random, h))
	must(n.T, err)
	must(n.T, conn.CloseWrite())
	a := <-got
	if a.err != nil || a.size != bulkBytes || a.sum != [32]byte(h.Sum(nil)) {
		n.Errorf("%d of %d bytes arrived (%v), same digest: %v", a.size, bulkBytes, a.err, a.sum == [32]byte(h.Sum(nil)))
	}
}

// TestShortConnections opens many connections that end at once.
func TestShortConnections(t *testing.T) {
	t.Parallel()
	const count = 2000
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			t.Parallel()
			n := newPair(t, setup{change: func(c *control.Config) { c.Offload = offload }})
			patiently := netlab.Patiently(t.Context(), patience/6)
			var failed atomic.Int32
			var first atomic.Value
			var wg sync.WaitGroup
			ports := make(chan uint16)
			for range 8 {
				wg.Go(func() {
					for port := range ports {
						if err := n.brief(patiently, n.friend, n.server, 4+2*int(port%2), port); err != nil {
							failed.Add(1)
							first.CompareAndSwap(nil, err.Error())
						}
					}
				})
			}
			for range count {
				ports <- n.port()
			}
			close(ports)
			wg.Wait()
			if failed.Load() > 0 {
				t.Errorf("%d of %d connections failed, the first: %v", failed.Load(), count, first.Load())
			}
		})
	}
}

// brief opens a connection, has some bytes echoed, and closes it.
func (n *node) brief(ctx context.Context, from, to *pod, family int, port uint16) error {
	r, err := from.Namespace().ProbeTCP(ctx, at(from.addr(family), port), at(to.addr(family), 80))
	if err == nil && (!r.Passed || !strings.HasPrefix(r.Seen, "connected")) {
		err = fmt.Errorf("%s", r.Seen)
	}
	return err
}
