// The guest is init in the virtual machines of tools/vm: it loads modules, runs
// jobs one after the other, reports on the console and switches the machine
// off.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/tools/vm"
)

func main() {
	if err := boot(); err != nil {
		fmt.Println("guest:", err)
	} else {
		fmt.Println(vm.MarkDone)
	}
	unix.Sync()
	// The serial line takes a moment to drain.
	time.Sleep(200 * time.Millisecond)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func boot() error {
	for _, m := range []struct{ fs, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
		{"bpf", "/sys/fs/bpf"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return fmt.Errorf("create %s: %w", m.at, err)
		}
		if err := unix.Mount(m.fs, m.at, m.fs, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := loadModules(); err != nil {
		return err
	}
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited); err != nil {
		return fmt.Errorf("raise memlock: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	fmt.Println(vm.MarkBooted)
	return runJobs()
}

func loadModules() error {
	list, err := os.ReadFile(vm.ModulesFile)
	if err != nil {
		return fmt.Errorf("read list of modules: %w", err)
	}
	for path := range strings.FieldsSeq(string(list)) {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("open module: %w", err)
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && err != unix.EEXIST {
			fmt.Printf("guest: load %s: %v\n", path, err)
		}
	}
	return nil
}

func runJobs() error {
	data, err := os.ReadFile(vm.JobsFile)
	if err != nil {
		return fmt.Errorf("read jobs: %w", err)
	}
	var jobs []vm.Job
	if err := json.Unmarshal(data, &jobs); err != nil {
		return fmt.Errorf("read jobs: %w", err)
	}
	for _, j := range jobs {
		start := time.Now()
		cmd := exec.Command(j.Args[0], j.Args[1:]...)
		cmd.Env = append([]string{"PATH=/bin:/sbin", "HOME=/tmp", "REQUIRE_PRIV=1"}, j.Env...)
		cmd.Dir = "/tmp"
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		r := vm.Result{Name: j.Name}
		if err := cmd.Run(); err != nil {
			fmt.Printf("guest: %s: %v\n", j.Name, err)
			r.Exit = max(cmd.ProcessState.ExitCode(), 1)
		}
		r.Took = time.Since(start).Round(100 * time.Millisecond).String()
		out, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode result: %w", err)
		}
		fmt.Printf("\n%s%s\n", vm.MarkResult, out)
	}
	return nil
}
