package dataplane

import (
	"testing"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

// A socket whose fill ring ran dry while others held all frames of the UMEM
// receives nothing; it must be filled again all the same once there are some.
func TestDryFillRing(t *testing.T) {
	needRoot(t)
	w := newTestWorker(t)
	const loopback = 1
	cfg := xsk.Default(loopback, 0)
	cfg.FillSize = 2048 // more than there are frames
	sock, err := w.umem.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sock.Close(); err != nil {
			t.Error(err)
		}
	})
	others := make([]uint64, w.umem.Frames())
	if n := w.umem.Alloc(others); n != len(others) {
		t.Fatalf("others hold %d of %d frames", n, len(others))
	}
	if n := w.receive(sock); n != 0 || w.umem.Held() != 0 {
		t.Fatalf("received %d, the socket holds %d frames", n, w.umem.Held())
	}
	w.umem.Free(others)
	w.receive(sock)
	if n := w.umem.Held(); n != len(others) {
		t.Errorf("the socket holds %d of %d frames", n, len(others))
	}
}
