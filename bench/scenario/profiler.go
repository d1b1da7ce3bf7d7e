package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// profiler samples all CPUs by perf.
type profiler struct {
	cmd     *exec.Cmd
	path    string
	out     bytes.Buffer
	control *os.File // open as long as perf runs, or it takes that for an error
}

// sampleRate is how many samples perf takes a second and CPU.
const sampleRate = "1999"

// startProfiler starts perf and returns when it samples: on a busy machine it takes
// seconds to find out what is mapped where. It leaves nothing in the user's cache of
// build ids.
func startProfiler(dir string) (_ *profiler, err error) {
	its, control, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create pipe: %w", err)
	}
	defer its.Close()
	defer func() {
		if err != nil {
			control.Close()
		}
	}()
	answers, acks, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create pipe: %w", err)
	}
	defer answers.Close()
	defer acks.Close()
	p := &profiler{path: filepath.Join(dir, "perf.data"), control: control}
	// -D -1: sample when told to by the pipe that is file 3 there.
	p.cmd = exec.Command("perf", "record", "-a", "-B", "-N", "-F", sampleRate, "-D", "-1", "--control", "fd:3,4", "-o", p.path)
	p.cmd.ExtraFiles = []*os.File{its, acks}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start perf: %w", err)
	}
	acks.Close() // so that its end ends the reading
	err = errors.Join(answers.SetReadDeadline(time.Now().Add(startPatience)), write(control, "enable\n"))
	if err == nil {
		_, err = answers.Read(make([]byte, len("ack\n")))
	}
	if err != nil {
		p.cmd.Process.Kill() // fails if it has ended, of which Wait tells more
		return nil, errors.Join(fmt.Errorf("start perf: %w", err), p.cmd.Wait(), errors.New(p.out.String()))
	}
	return p, nil
}

func write(f *os.File, text string) error {
	_, err := f.WriteString(text)
	return err
}

// stop ends the sampling and sorts what there is. The system must be running yet:
// which processes are its own is asked now.
func (p *profiler) stop(ctx context.Context) (pr Profile, err error) {
	self := p.cmd.Process.Pid
	kind, err := processKinds(os.Getpid(), self)
	p.cmd.Process.Signal(os.Interrupt) // fails if it has ended, of which Wait tells more
	wait := errors.Join(p.cmd.Wait(), p.control.Close())
	defer func() { err = errors.Join(err, os.Remove(p.path)) }()
	if err != nil {
		return pr, err
	}
	script := func(fields string) (string, error) {
		cmd := exec.CommandContext(ctx, "perf", "script", "-i", p.path, "-F", fields)
		var bad bytes.Buffer
		cmd.Stderr = &bad
		out, err := cmd.Output()
		if err != nil {
			return "", errors.Join(fmt.Errorf("read profile: %w", err), wait, errors.New(bad.String()+p.out.String()))
		}
		return string(out), nil
	}
	samples, err := script("pid,ip,sym,dso")
	if err != nil {
		return pr, err
	}
	events, err := script("event")
	if err != nil {
		return pr, err
	}
	pr = sortProfile(samples, kind)
	event, _, _ := strings.Cut(events, "\n")
	pr.Event, _, _ = strings.Cut(strings.TrimSpace(event), ":")
	return pr, nil
}
