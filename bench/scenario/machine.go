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
	// Governor of CPU 0's frequency, and what the machine runs on, if known.
	Governor string `json:"governor,omitempty"`
	Virtual  string `json:"virtual,omitempty"`
	MemoryMB int    `json:"memoryMB,omitempty"`
	Awake    bool   `json:"awake,omitempty"` // its CPUs were kept from sleeping
	// Congestion control of the pods' TCP.
	Congestion string `json:"congestion,omitempty"`
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
	if b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control"); err == nil {
		m.Congestion = strings.TrimSpace(string(b))
	}
	m.Governor, m.Virtual = governor(), virtual(string(info))
	var sys unix.Sysinfo_t
	if err := unix.Sysinfo(&sys); err == nil {
		m.MemoryMB = int(uint64(sys.Totalram) * uint64(sys.Unit) >> 20)
	}
	return m, nil
}

// governor is what sets the frequency of CPU 0. Virtual machines have none.
func governor() string {
	b, err := os.ReadFile("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
	if err != nil {
		return "none visible"
	}
	return strings.TrimSpace(string(b))
}

// virtual says whether a hypervisor is below, as CPUs and firmware tell it.
func virtual(cpuinfo string) string {
	if !strings.Contains(cpuinfo, " hypervisor") {
		return ""
	}
	if b, err := os.ReadFile("/sys/class/dmi/id/sys_vendor"); err == nil {
		return "virtual machine, " + strings.TrimSpace(string(b))
	}
	return "virtual machine"
}

// String is one line for the head of a report.
func (m Machine) String() string {
	s := fmt.Sprintf("%d × %s, Linux %s, %s, load average %s", m.CPUs, m.CPU, m.Kernel, m.Go, m.Load)
	if m.Virtual != "" {
		s += ", " + m.Virtual
	}
	if m.Governor != "" {
		s += ", frequency governor: " + m.Governor
	}
	if m.Awake {
		s += ", CPUs kept awake"
	}
	if m.Congestion != "" {
		s += ", TCP " + m.Congestion
	}
	return s
}
