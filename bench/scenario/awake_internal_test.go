package scenario

import (
	"encoding/binary"
	"os"
	"testing"
)

// latencyWanted is how long CPUs may take to wake up, by all who hold the device.
func latencyWanted(t *testing.T) (us uint32) {
	t.Helper()
	f, err := os.Open("/dev/cpu_dma_latency")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := binary.Read(f, binary.NativeEndian, &us); err != nil {
		t.Fatal(err)
	}
	return us
}

func TestKeepAwake(t *testing.T) {
	needRoot(t)
	before := latencyWanted(t)
	release, err := keepAwake()
	if err != nil {
		t.Fatal(err)
	}
	if got := latencyWanted(t); got != 0 {
		t.Errorf("awake: %d µs allowed, want 0", got)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if got := latencyWanted(t); got != before {
		t.Errorf("afterwards: %d µs allowed, want %d as before", got, before)
	}
}
