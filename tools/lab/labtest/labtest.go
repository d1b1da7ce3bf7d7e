// Package labtest is what tests of labs share.
package labtest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/tools/lab"
)

// NeedRoot skips the test for an ordinary user, and fails it where
// REQUIRE_PRIV=1 says that it must run.
func NeedRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("REQUIRE_PRIV") == "1" {
		t.Fatal("labs need root")
	}
	t.Skip("labs need root")
}

// buildDir is where the binary is, if it was needed.
var buildDir string

var build = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("SLUICE_BIN"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "sluice-lab-test")
	if err != nil {
		return "", err
	}
	buildDir = dir
	path := filepath.Join(dir, "sluice")
	out, err := exec.Command("go", "build", "-o", path, "github.com/sluice-net/sluice/tools/sluice").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build sluice: %w: %s", err, out)
	}
	return path, nil
})

// Binary builds sluice once a test process, unless SLUICE_BIN names one. Main
// removes it.
func Binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Main runs the tests of a package that uses Binary. Labs wait most of the time:
// more of them at once than there are cores, unless the caller wants another number.
func Main(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = flag.Set("test.parallel", "6")
	}
	code := m.Run()
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// Run runs the binary to its end and returns its exit code and output.
func Run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), Binary(t), args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("run sluice %v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// Connect attempts a TCP connection in a lab's pod that is allowed, or one that is
// denied, whose silence is believed sooner. Any other outcome ends the test.
func Connect(t *testing.T, lab string, allowed bool, pod, addr, port string) {
	t.Helper()
	patience := "3"
	if allowed {
		patience = "30"
	}
	code, _, _ := Run(t, "lab", "exec", "--name", lab, pod, "--", "timeout", patience, "bash", "-c", "exec 3<>/dev/tcp/"+addr+"/"+port)
	if (code == 0) != allowed {
		t.Fatalf("%s to %s:%s: exit code %d, allowed %v", pod, addr, port, code, allowed)
	}
}

// Gone waits until nothing of a lab is left: no namespace, mount, file or
// process.
func Gone(t *testing.T, name string) {
	t.Helper()
	var left []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if left = traces(t, name); len(left) == 0 {
			return
		}
	}
	t.Errorf("left of lab %s: %v", name, left)
}

func traces(t *testing.T, name string) []string {
	t.Helper()
	left, err := netlab.Namespaces(netlab.Prefix(name))
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(lab.StateDir, name+"*"))
	left = append(left, files...)
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, lab.StateDir+"/"+name+"/") || strings.Contains(line, netlab.Prefix(name)) {
			left = append(left, strings.TrimSpace(line))
		}
	}
	return append(left, processes(name)...)
}

// processes lists those that have the lab's name or one of its paths in their
// command line. Ones that ended, and only wait for their parent, have none.
func processes(name string) []string {
	var found []string
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
		if !strings.HasSuffix(args[0], "sluice") {
			continue
		}
		for _, arg := range args[1:] {
			if arg == name || strings.Contains(arg, lab.StateDir+"/"+name+"/") {
				found = append(found, strings.Join(args, " "))
				break
			}
		}
	}
	return found
}
