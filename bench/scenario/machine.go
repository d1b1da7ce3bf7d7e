package scenario

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is where the numbers were measured.
type Machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Load   string `json:"load"` // averages at the start: 1, 5, 15 minutes
}

// ReadMachine describes this machine as it is now.
func ReadMachine() (Machine, error) {
	m := Machine{CPU: "unknown", CPUs: runtime.NumCPU(), Go: runtime.Version()}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("read kernel version: %w", err)
	}
	release, _, _ := bytes.Cut(u.Release[:], []byte{0})
	m.Kernel = string(release)
	avg, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, fmt.Errorf("read load: %w", err)
	}
	m.Load = strings.Join(strings.Fields(string(avg))[:3], " ")
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, fmt.Errorf("read CPU: %w", err)
	}
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m, nil
}

// String is one line for the head of a report.
func (m Machine) String() string {
	return fmt.Sprintf("%d × %s, Linux %s, %s, load average %s", m.CPUs, m.CPU, m.Kernel, m.Go, m.Load)
}
