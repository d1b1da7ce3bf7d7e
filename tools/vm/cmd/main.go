// The command runs Sluice's own tests on other kernels, in QEMU.
//
//	go run ./tools/vm/cmd kernels              # every kernel of the matrix, a table
//	go run ./tools/vm/cmd kernels -only 6.1    # one of them, its console on stderr with -v
//	go run ./tools/vm/cmd kernels -debs DIR    # the one whose packages are in a folder
//	go run ./tools/vm/cmd kernels -quick       # what each one's verifier says, and attaching: a minute each
//	go run ./tools/vm/cmd kernels -run REGEXP  # chosen tests of control/e2e, as go test -run
//	go run ./tools/vm/cmd zerocopy             # AF_XDP zero-copy on virtio_net
//
// A folder for -debs holds the .deb files of one kernel of any distribution: its
// image and its modules (linux-image-*, linux-modules-*).
//
// It exits with 1 if something failed on any kernel.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/sluice-net/sluice/tools/vm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// options are common to all suites.
type options struct {
	only    string
	verbose bool
	quick   bool
	run     string // tests of control/e2e, instead of the suite
	nics    bool   // run's tests have NICs for a cable
	debs    string // folder of packages, instead of the matrix
	out     string // file for the table
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("want kernels or zerocopy")
	}
	var o options
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.StringVar(&o.only, "only", "", "the one kernel series to run on, or newest")
	flags.BoolVar(&o.quick, "quick", false, "kernels: only load all programs and attach them")
	flags.BoolVar(&o.verbose, "v", false, "print the guests' consoles")
	flags.StringVar(&o.out, "o", "", "write the table into this file as well")
	flags.StringVar(&o.run, "run", "", "kernels: only the tests of control/e2e that this regular `expression` chooses")
	flags.BoolVar(&o.nics, "nics", false, "kernels: give the tests of -run two virtio NICs for a cable")
	flags.StringVar(&o.debs, "debs", "", "kernels: the kernel whose .deb files are in this `folder`")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if o.debs != "" && o.only != "" || o.run != "" && o.quick || o.run == "" && o.nics || flags.NArg() > 0 {
		return fmt.Errorf("want either -debs or -only, either -run or -quick, -nics with -run, and nothing else: %q", flags.Args())
	}
	bin, err := os.MkdirTemp("", "sluice-guest-")
	if err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	defer os.RemoveAll(bin)
	switch args[0] {
	case "kernels":
		return kernels(ctx, o, bin)
	case "zerocopy":
		return zerocopy(ctx, o, bin)
	}
	return fmt.Errorf("unknown suite %q: want kernels or zerocopy", args[0])
}

// build compiles static binaries for the guest: the init, the product, and the
// tests of packages, each named after the last element of its path.
func build(ctx context.Context, bin string, packages ...string) (map[string]string, error) {
	files := map[string]string{"/init": filepath.Join(bin, "init")}
	goTool := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("run go %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	if err := goTool("build", "-ldflags=-s -w", "-o", files["/init"], "./tools/vm/guest"); err != nil {
		return nil, err
	}
	if err := goTool("build", "-ldflags=-s -w", "-o", filepath.Join(bin, "sluice"), "./tools/sluice"); err != nil {
		return nil, err
	}
	files["/bin/sluice"] = filepath.Join(bin, "sluice")
	for _, pkg := range packages {
		name := filepath.Base(pkg) + ".test"
		files["/bin/"+name] = filepath.Join(bin, name)
		if err := goTool("test", "-c", "-tags", "guest", "-ldflags=-s -w", "-o", filepath.Join(bin, name), pkg); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// addProgram adds a program of this machine, with the libraries that it is linked
// with, each at its own path but for the program, which goes to /bin.
func addProgram(ctx context.Context, files map[string]string, name string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		if path = filepath.Join("/usr/sbin", name); !isFile(path) {
			return fmt.Errorf("find program %s: %w", name, err)
		}
	}
	out, err := exec.CommandContext(ctx, "ldd", path).Output()
	if err != nil {
		return fmt.Errorf("list libraries of %s: %w", path, err)
	}
	for field := range strings.FieldsSeq(string(out)) {
		if filepath.IsAbs(field) {
			files[field] = field
		}
	}
	files["/bin/"+name] = path
	return nil
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// fetch gets a kernel out of the cache or from Debian.
func fetch(ctx context.Context, src vm.Source) (vm.Kernel, error) {
	dir, err := vm.CacheDir()
	if err != nil {
		return vm.Kernel{}, err
	}
	return vm.Fetch(ctx, dir, src)
}

// testJob runs a package's tests in the guest.
func testJob(name, binary, tests string) vm.Job {
	return vm.Job{Name: name, Env: []string{"SLUICE_E2E_PATIENCE=3m"},
		Args: []string{"/bin/" + binary, "-test.run", tests, "-test.v", "-test.parallel", "3", "-test.timeout", "30m"}}
}
