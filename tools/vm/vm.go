// Package vm boots kernels in QEMU to run static test binaries on them: on kernels
// that the machine doesn't have, and on network devices whose driver has AF_XDP
// zero-copy.
//
// A kernel comes from a package of Debian, resolved when it is asked for and
// unpacked into a cache folder, or from package files of any distribution that the
// caller has. It is never installed. The initramfs is written here; its init is
// tools/vm/guest. QEMU emulates (TCG), so nothing that runs in it says anything
// about speed.
//
// Nothing here needs root; apt, dpkg-deb, xz or zstd and qemu-system-x86_64 are
// run as programs.
package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Job is one program to run in the guest. All jobs run, one after the other.
type Job struct {
	Name string
	Args []string // Args[0] is a path in the guest
	Env  []string
}

// Result is what became of a job.
type Result struct {
	Name string
	Exit int    // -1: it did not run, or did not end
	Took string // as time.Duration prints it, in the guest
}

// Machine is a virtual machine for one run.
type Machine struct {
	Kernel   Kernel
	Modules  []string          // names, without those that they need
	Files    map[string]string // path in the guest → path on this machine
	Jobs     []Job
	Devices  []string // further arguments of QEMU
	MemoryMB int
	Timeout  time.Duration
	Console  io.Writer // what the guest prints; nil: nobody
}

// Markers on the console that the guest writes and Run reads.
const (
	MarkBooted = "@@booted"
	MarkResult = "@@result "
	MarkDone   = "@@done"
)

// tries is how often a guest is booted that the emulation breaks: an emulated CPU now
// and then meets the breakpoint of an instruction that the kernel is just patching,
// and takes it for a bug. While it boots, that looks like anything.
const tries = 3

// errEmulation says that a guest did not get as far as its jobs, or that it ended by
// such a breakpoint.
var errEmulation = errors.New("emulation failed")

// Run boots the machine and returns what its jobs came to. A guest that
// crashes, reports a kernel bug, or doesn't end in time is an error.
func (m Machine) Run(ctx context.Context) (results []Result, err error) {
	for range tries {
		if results, err = m.run(ctx); !errors.Is(err, errEmulation) {
			break
		}
	}
	return results, err
}

func (m Machine) run(ctx context.Context) ([]Result, error) {
	dir, err := os.MkdirTemp("", "sluice-vm-")
	if err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := m.writeInitrd(ctx, initrd); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	args := append([]string{
		"-n", fmt.Sprint(yielding()), "qemu-system-x86_64", "-M", "q35", "-smp", "2",
		"-m", fmt.Sprint(m.MemoryMB), "-nodefaults", "-display", "none", "-serial", "stdio",
		"-monitor", "none", "-no-reboot", "-kernel", m.Kernel.Image, "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable",
	}, append(accelerator(), m.Devices...)...)
	cmd := exec.CommandContext(ctx, "nice", args...)
	cmd.WaitDelay = 5 * time.Second
	// QEMU ends with us, however we end. The kernel means the thread that
	// started it (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("pipe console: %w", err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	results, faults, booted, done := m.read(out)
	err = cmd.Wait()
	switch {
	case !booted && ctx.Err() == nil:
		return results, fmt.Errorf("run guest: %w: it did not boot: %v: %s\n%s", errEmulation, err, bytes.TrimSpace(stderr.Bytes()), strings.Join(faults, "\n"))
	case ctx.Err() != nil:
		return results, fmt.Errorf("run guest: not done within %v", m.Timeout)
	case err != nil:
		return results, fmt.Errorf("run qemu: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	case !done && slices.ContainsFunc(faults, patching):
		return results, fmt.Errorf("run guest: %w:\n%s", errEmulation, strings.Join(faults, "\n"))
	case !done:
		return results, fmt.Errorf("run guest: it ended early:\n%s", strings.Join(faults, "\n"))
	case len(faults) > 0:
		return results, fmt.Errorf("kernel complains:\n%s", strings.Join(faults, "\n"))
	}
	return results, nil
}

// niceness is that of a guest, whatever that of the caller is: it gives way to other
// work, but one that hardly runs sees clocks jump by seconds between two packets.
const niceness = 10

// yielding is what the guest's niceness is above the caller's.
func yielding() int {
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return niceness
	}
	return max(0, niceness-(20-raw)) // the system call gives 20 less the niceness
}

// accelerator says how the guest's instructions run. Emulation works
// everywhere; KVM inside of virtual machines often only seems to.
func accelerator() []string {
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
}

// read follows the console until it ends.
func (m Machine) read(out io.Reader) (results []Result, faults []string, booted, done bool) {
	for _, j := range m.Jobs {
		results = append(results, Result{Name: j.Name, Exit: -1})
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if m.Console != nil {
			fmt.Fprintln(m.Console, line)
		}
		// The kernel may have printed something right before.
		if i := strings.Index(line, MarkResult); i >= 0 {
			var r Result
			if json.Unmarshal([]byte(line[i+len(MarkResult):]), &r) == nil {
				for i := range results {
					if results[i].Name == r.Name {
						results[i] = r
					}
				}
			}
		}
		booted = booted || strings.Contains(line, MarkBooted)
		done = done || strings.Contains(line, MarkDone)
		if kernelFault(line) {
			faults = append(faults, line)
		}
	}
	return results, faults, booted, done
}

// patching reports whether a fault is that of a breakpoint in the kernel's code.
func patching(fault string) bool { return strings.Contains(fault, "Oops: int3:") }

// kernelFault reports whether a console line is the kernel saying that it is
// broken.
func kernelFault(line string) bool {
	for _, s := range []string{"BUG:", "Oops", "Kernel panic", "general protection fault", "KASAN:", "WARNING: CPU:"} {
		if strings.Contains(line, s) {
			return true
		}
	}
	return false
}
