package xsk_test

import (
	"testing"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

func TestSendReceive(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	socks := steer(t, b)
	ua, ub := newUMEM(t, 512), newUMEM(t, 512)
	sa, sb := open(t, ua, small(a)), open(t, ub, small(b))
	register(t, socks, 0, sb.FD())
	if n := sb.Refill(); n != 256 {
		t.Fatalf("refilled %d frames, want the ring's 256", n)
	}
	if sa.Mode() != xsk.Copy {
		t.Fatalf("mode %v on veth, want copy", sa.Mode())
	}
	for i, size := range []int{18, 60, 64, 1000, 1514} {
		for round := range 20 {
			first := (i*20 + round) * 100
			send(t, sa, first, 100, size)
			receive(t, sb, first, 100, size)
		}
	}
	if sa.Unsent() != 0 || ua.Available() != 512 {
		t.Errorf("%d frames unsent, %d of 512 free", sa.Unsent(), ua.Available())
	}
	if n := ub.Available() + 256; n != 512 {
		t.Errorf("%d of 512 frames accounted for at the receiver", n)
	}
	st, err := sb.Stats()
	if st.TxRingEmpty = 0; err != nil || st != (xsk.Stats{}) {
		t.Errorf("receiver's stats %+v, %v", st, err)
	}
}
