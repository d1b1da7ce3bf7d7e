package acl

import (
	"bufio"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed peer/acl.c
var source []byte

// ErrNoLibrary says that the C side can't be built here.
var ErrNoLibrary = errors.New("librte_acl isn't installed (Debian: libdpdk-dev, pkg-config, a C compiler)")

// Algorithms are rte_acl's ways to classify on this architecture.
var Algorithms = []string{"scalar", "sse", "avx2", "avx512x16", "avx512x32"}

// Compile builds the C side in a directory and returns its path.
func Compile(dir string) (string, error) {
	cflags, err := exec.Command("pkg-config", "--cflags", "libdpdk").Output()
	if err != nil {
		return "", fmt.Errorf("%w: pkg-config: %v", ErrNoLibrary, err)
	}
	libs, err := exec.Command("pkg-config", "--libs", "libdpdk").Output()
	if err != nil {
		return "", fmt.Errorf("%w: pkg-config: %v", ErrNoLibrary, err)
	}
	src, bin := filepath.Join(dir, "acl.c"), filepath.Join(dir, "acl")
	if err := os.WriteFile(src, source, 0o644); err != nil {
		return "", err
	}
	args := append([]string{"-O3", "-march=native"}, strings.Fields(string(cflags))...)
	args = append(append(args, src, "-o", bin), strings.Fields(string(libs))...)
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile acl.c: %w\n%s", err, out)
	}
	return bin, nil
}

// Version returns the library's version.
func Version() string {
	out, err := exec.Command("pkg-config", "--modversion", "libdpdk").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// Peer is a running C side. It waits while nobody asks it anything.
type Peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	log strings.Builder
}

// Start starts the C side on one CPU, with memory for its rules in MB.
func Start(bin string, cpu, memoryMB int) (*Peer, error) {
	p := &Peer{cmd: exec.Command(bin, "--no-huge", "--no-shconf", "--no-pci", "--no-telemetry",
		"--log-level=error", "--force-max-simd-bitwidth=512",
		"-m", strconv.Itoa(memoryMB), "-l", strconv.Itoa(cpu))}
	p.cmd.Stderr = &p.log
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start rte_acl peer: %w", err)
	}
	for { // EAL may print before we do
		line, err := p.out.ReadString('\n')
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start rte_acl peer: %w: %s", err, p.log.String()), p.Close())
		}
		if line == "ready\n" {
			return p, nil
		}
	}
}

// ask sends one command and returns the numbers after the word of its answer.
func (p *Peer) ask(want, format string, args ...any) ([]uint64, error) {
	command := fmt.Sprintf(format, args...)
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		return nil, fmt.Errorf("rte_acl peer: %s: %w: %s", command, err, p.log.String())
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("rte_acl peer: %s: %w: %s", command, err, p.log.String())
	}
	words := strings.Fields(line)
	if len(words) == 0 || words[0] != want {
		return nil, fmt.Errorf("rte_acl peer: %s: answered %q", command, strings.TrimSpace(line))
	}
	numbers := make([]uint64, len(words)-1)
	for i, w := range words[1:] {
		if numbers[i], err = strconv.ParseUint(w, 10, 64); err != nil {
			return nil, fmt.Errorf("rte_acl peer: %s: %w", command, err)
		}
	}
	return numbers, nil
}

// Build loads rules from a file, and returns what building took and holds.
func (p *Peer) Build(path string) (ns, bytes uint64, err error) {
	n, err := p.ask("built", "build %s", path)
	if err == nil && len(n) != 3 {
		err = fmt.Errorf("rte_acl peer: build: answered %v", n)
	}
	if err != nil {
		return 0, 0, err
	}
	return n[0], n[1], nil
}

// Keys loads packets from a file.
func (p *Peer) Keys(path string) error {
	_, err := p.ask("keys", "keys %s", path)
	return err
}

// Choose picks an algorithm and reports whether this machine has it.
func (p *Peer) Choose(algorithm string) bool {
	_, err := p.ask("ok", "alg %s", algorithm)
	return err == nil
}

// Time is what timed is for the C side: nanoseconds of a pass.
func (p *Peer) Time(batch int) (uint64, error) {
	n, err := p.ask("took", "time %d %d", least.Nanoseconds(), batch)
	if err == nil && len(n) != 1 {
		err = fmt.Errorf("rte_acl peer: time: answered %v", n)
	}
	if err != nil {
		return 0, err
	}
	return n[0], nil
}

// Results returns the Data of the rule that each packet matched last time.
func (p *Peer) Results(dir string) ([]uint32, error) {
	path := filepath.Join(dir, "results")
	if _, err := p.ask("written", "results %s", path); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	out := make([]uint32, len(raw)/4)
	for i := range out {
		out[i] = binary.NativeEndian.Uint32(raw[4*i:])
	}
	return out, nil
}

// Close ends the C side.
func (p *Peer) Close() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}
