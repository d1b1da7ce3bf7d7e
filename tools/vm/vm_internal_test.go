package vm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNewest(t *testing.T) {
	names := []string{
		"linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64", "linux-image-6.1.0-50-amd64",
		"linux-image-6.18.15+deb13-cloud-amd64", "linux-image-6.18.9+deb13-cloud-amd64",
		"linux-image-6.18.20+deb13-cloud-amd64-unsigned", "linux-image-7.3.4+deb13-cloud-amd64", "linux-image-cloud-amd64",
		"linux-image-6.12.43+deb13-amd64", "linux-image-7.3.4+deb13-rt-amd64", "linux-image-6.12.43+deb13-cloud-arm64",
	}
	for _, c := range []struct{ series, want string }{
		{"6.1", "linux-image-6.1.0-50-cloud-amd64"},
		{"6.18", "linux-image-6.18.15+deb13-cloud-amd64"},
		{"", "linux-image-7.3.4+deb13-cloud-amd64"},
		{"6.12", ""},
		{"6.16", ""},
	} {
		if got := newest(names, c.series); got != c.want {
			t.Errorf("newest %q: %q, want %q", c.series, got, c.want)
		}
	}
}

func TestPartsOf(t *testing.T) {
	got := partsOf("linux-image-x\n  Depends: linux-binary-x\n  Depends: linux-modules-x\n  Depends: kmod\n |Depends: linux-modules-y\n")
	if want := []string{"linux-binary-x", "linux-modules-x"}; !slices.Equal(got, want) {
		t.Errorf("parts %q, want %q", got, want)
	}
}

// addDeb builds a package that holds the given files.
func addDeb(t *testing.T, folder, name string, files ...string) {
	t.Helper()
	root := t.TempDir()
	put(t, filepath.Join(root, "DEBIAN/control"), "Package: "+name+"\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: test\n")
	for _, f := range files {
		put(t, filepath.Join(root, f), f)
	}
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-b", root, filepath.Join(folder, name+".deb")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// TestUnpack takes a kernel out of packages that somebody has, laid out as
// distributions do, and says what is wrong with a folder that holds none.
func TestUnpack(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("needs dpkg-deb")
	}
	const (
		boot    = "boot/vmlinuz-5.15.0-9-generic"
		binary  = "usr/lib/modules/7.3.4-cloud/vmlinuz"
		modules = "lib/modules/5.15.0-9-generic/kernel/net/veth.ko"
		merged  = "usr/lib/modules/7.3.4-cloud/kernel/net/veth.ko.xz"
	)
	for _, c := range []struct {
		name    string
		debs    map[string][]string
		release string
		err     string
	}{
		{"two packages", map[string][]string{"image": {boot}, "modules": {modules}}, "5.15.0-9-generic", ""},
		{"one package", map[string][]string{"image": {boot, modules}}, "5.15.0-9-generic", ""},
		{"image among the modules", map[string][]string{"binary": {binary}, "modules": {merged}}, "7.3.4-cloud", ""},
		{"nothing", nil, "", "no .deb file in "},
		{"no image", map[string][]string{"modules": {modules}}, "", "no vmlinuz: want the packages of one kernel, with its image and its modules; there are modules.deb"},
		{"no modules", map[string][]string{"image": {boot}}, "", "no modules: want the packages of one kernel"},
		{"two kernels", map[string][]string{"a": {boot, modules}, "b": {"boot/vmlinuz-6.8.0-1-generic"}}, "", "more than one: vmlinuz-5.15.0-9-generic, vmlinuz-6.8.0-1-generic"},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder := t.TempDir()
			for name, files := range c.debs {
				addDeb(t, folder, name, files...)
			}
			k, err := Unpack(t.Context(), folder, filepath.Join(t.TempDir(), "tree"))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if image, err := os.ReadFile(k.Image); k.Release != c.release || k.From != Given || err != nil || !strings.Contains(string(image), "vmlinuz") {
				t.Errorf("kernel %+v, image %q, %v", k, image, err)
			}
			if mods, err := k.modules(t.Context(), nil); len(mods) != 0 || err != nil {
				t.Errorf("modules %v, %v", mods, err)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "image.deb")
	put(t, file, "no package")
	for folder, want := range map[string]string{file + "x": "no such file", file: "is no folder", filepath.Dir(file): "unpack " + file} {
		if _, err := Unpack(t.Context(), folder, filepath.Join(t.TempDir(), "tree")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// TestCPIO checks the archive's bytes against the format's rules: hexadecimal
// heads, names and data on boundaries of four, folders before what is in them.
func TestCPIO(t *testing.T) {
	var buf bytes.Buffer
	c := &cpio{w: &buf, dirs: map[string]bool{"/": true}}
	c.file("/a/b/file", 0o755, []byte("hello"))
	c.file("/a/c", 0o600, nil)
	c.trailer()
	if c.err != nil {
		t.Fatal(c.err)
	}
	var names []string
	for rest := buf.Bytes(); len(rest) > 0; {
		if string(rest[:6]) != "070701" {
			t.Fatalf("magic %q", rest[:6])
		}
		var field [13]int
		for i := range field {
			if _, err := fmt.Sscanf(string(rest[6+8*i:14+8*i]), "%08x", &field[i]); err != nil {
				t.Fatal(err)
			}
		}
		size, length := field[6], field[11]
		name := string(rest[110 : 110+length-1])
		names = append(names, name)
		at := (110 + length + 3) &^ 3
		if name == "a/b/file" && (string(rest[at:at+size]) != "hello" || field[1] != 0o100755) {
			t.Errorf("file of mode %o holds %q", field[1], rest[at:at+size])
		}
		rest = rest[at+(size+3)&^3:]
	}
	if want := []string{"a", "a/b", "a/b/file", "a/c", "TRAILER!!!"}; !slices.Equal(names, want) {
		t.Errorf("entries %q, want %q", names, want)
	}
}

func TestConsole(t *testing.T) {
	m := Machine{Jobs: []Job{{Name: "one"}, {Name: "two"}}}
	results, faults, booted, done := m.read(strings.NewReader("[ 1.0] virtio\r\n" + MarkBooted + "\r\n" +
		"[ 2.0] noise" + MarkResult + `{"Name":"one","Exit":3}` + "\r\n[ 3.0] BUG: kernel NULL pointer dereference\r\n"))
	if results[0].Exit != 3 || results[1].Exit != -1 || len(faults) != 1 || !booted || done {
		t.Errorf("results %+v, faults %q, done %t", results, faults, done)
	}
}

// TestAgain has a script for QEMU: what emulation breaks is tried again, what the
// kernel itself breaks is not.
func TestAgain(t *testing.T) {
	for fault, want := range map[string]int{"Oops: int3: 0000 [#1] SMP NOPTI": tries, "Oops: 0002 [#1] SMP NOPTI": 1, "": 1} {
		dir := t.TempDir()
		script := "#!/bin/sh\necho >>" + filepath.Join(dir, "runs") + "\necho '" + MarkBooted + "'\necho '[ 1.0] " + fault + "'\n"
		for name, data := range map[string]string{"qemu-system-x86_64": script, "modules.dep": ""} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
		_, err := Machine{Kernel: Kernel{Modules: dir}, Timeout: time.Minute}.Run(t.Context())
		runs, _ := os.ReadFile(filepath.Join(dir, "runs"))
		if err == nil || len(runs) != want {
			t.Errorf("%q: run %d times, %v, want %d and an error", fault, len(runs), err, want)
		}
	}
}
