package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fakeProc writes a /proc of processes: pid, parent, and the four times.
func fakeProc(t *testing.T, processes [][6]int) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range processes {
		sub := filepath.Join(dir, fmt.Sprint(p[0]))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		// The name is what a process likes it to be.
		line := fmt.Sprintf("%d (a) 1 ) b) S %d 0 0 0 0 0 0 0 0 0 %d %d %d %d 20 0 1 0", p[0], p[1], p[2], p[3], p[4], p[5])
		if err := os.WriteFile(filepath.Join(sub, "stat"), []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOthersTimeCountsOthersOnly(t *testing.T) {
	proc := fakeProc(t, [][6]int{
		{1, 0, 1, 2, 3, 4},           // init, with the children that it waited for
		{2, 0, 1000, 1000, 0, 0},     // kthreadd
		{15, 2, 1000, 1000, 0, 0},    // ksoftirqd
		{100, 1, 2000, 0, 2000, 0},   // the benchmark
		{101, 100, 0, 3000, 0, 3000}, // its agent
		{200, 1, 10, 20, 0, 0},       // someone else
		{201, 200, 100, 0, 0, 0},     // and his child
	})
	got, err := othersTimeIn(proc, 100)
	if want := 140 * tick; err != nil || got != want {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
}

func TestOthersTimeRefusesWhatItDoesNotUnderstand(t *testing.T) {
	proc := fakeProc(t, nil)
	if err := os.MkdirAll(filepath.Join(proc, "7"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(proc, "7", "stat"), []byte("7 (x) S 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := othersTimeIn(proc, 1); err == nil {
		t.Error("no error")
	}
}

// The times of this machine never go back.
func TestLoadGoesForward(t *testing.T) {
	before, err := readLoad()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * tick)
	after, err := readLoad()
	if err != nil || after.busy < before.busy || after.softirq < before.softirq || after.busy < after.softirq {
		t.Errorf("from %+v to %+v (%v)", before, after, err)
	}
}
