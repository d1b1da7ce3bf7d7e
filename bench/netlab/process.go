package netlab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Processes lists the processes that live in any of the named namespaces. A
// process lives in a namespace if all of its threads do: one that merely has a
// thread there for a moment, as an agent that scans pods has, doesn't. The
// calling process is never listed.
func Processes(names []string) ([]int, error) {
	inodes := make(map[uint64]bool, len(names))
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(RunDir, name), &st); err == nil {
			inodes[st.Ino] = true
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if livesIn(pid, inodes) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

func livesIn(pid int, inodes map[uint64]bool) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/net", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, path := range threads {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || !inodes[st.Ino] {
			return false
		}
	}
	return true
}
