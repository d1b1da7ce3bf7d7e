package verdict_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/tools/verdict"
)

// A Live answers about what the store has now, while others change it.
func TestLive(t *testing.T) {
	st := store.New()
	pod := func(name, addr string) {
		st.Update(func(tx *store.Tx) {
			tx.SetPod(&store.Pod{Namespace: "a", Name: name, IPs: []netip.Addr{netip.MustParseAddr(addr)}, Labels: map[string]string{"app": name}})
		})
	}
	pod("x", "10.0.0.1")
	live := verdict.NewLive(st)
	web := verdict.Flow{Protocol: 6, Port: 80}
	if _, err := live.Walk("a/x", "a/y", web, nil); err == nil || !strings.Contains(err.Error(), "a/y: not found") {
		t.Errorf("before there is a pod: %v", err)
	}
	pod("y", "10.0.0.2")
	for _, dst := range []string{"a/y", "ip:10.0.0.2"} {
		got, err := live.Walk("ip:10.0.0.1", dst, web, nil)
		if err != nil || got.Verdict != verdict.Allow || got.Ingress.Pod != "a/y" {
			t.Errorf("%s: %+v, %v", dst, got, err)
		}
	}
	var changing, walking sync.WaitGroup
	stop := make(chan struct{})
	changing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				pod(fmt.Sprint("z", i%50), netip.AddrFrom4([4]byte{10, 0, 1, byte(i % 50)}).String())
			}
		}
	})
	for range 4 {
		walking.Go(func() {
			for range 50 {
				got, err := live.Walk("a/x", "a/y", web, nil)
				if err == nil && got.Verdict != verdict.Allow || err != nil && !strings.Contains(err.Error(), "change faster") {
					t.Errorf("while pods change: %+v, %v", got, err)
				}
			}
		})
	}
	walking.Wait()
	close(stop)
	changing.Wait()
}
