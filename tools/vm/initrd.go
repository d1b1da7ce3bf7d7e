package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
)

// Places in the guest that tools/vm/guest knows.
const (
	JobsFile    = "/jobs.json"
	ModulesFile = "/modules.list" // paths, in the order of loading
)

// writeInitrd writes the initramfs: Files must hold /init.
func (m Machine) writeInitrd(ctx context.Context, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("create initramfs: %w", err)
	}
	defer f.Close()
	c := &cpio{w: f, dirs: map[string]bool{"/": true}}
	mods, err := m.Kernel.modules(ctx, m.Modules)
	if err != nil {
		return err
	}
	var list bytes.Buffer
	for _, mod := range mods {
		p := "/modules/" + mod.name + ".ko"
		fmt.Fprintln(&list, p)
		c.file(p, 0o644, mod.data)
	}
	jobs, err := json.Marshal(m.Jobs)
	if err != nil {
		return fmt.Errorf("encode jobs: %w", err)
	}
	c.file(ModulesFile, 0o644, list.Bytes())
	c.file(JobsFile, 0o644, jobs)
	for _, p := range slices.Sorted(maps.Keys(m.Files)) {
		data, err := os.ReadFile(m.Files[p])
		if err != nil {
			return fmt.Errorf("read file for guest: %w", err)
		}
		c.file(p, 0o755, data)
	}
	c.dir("/dev")
	c.entry("/dev/console", modeChar|0o600, nil, 5, 1)
	c.trailer()
	if c.err != nil {
		return fmt.Errorf("write initramfs: %w", c.err)
	}
	return nil
}

// File types in a cpio mode.
const (
	modeDir  = 0o040000
	modeChar = 0o020000
	modeFile = 0o100000
)

// cpio writes the newc format (Documentation/driver-api/early-userspace/
// buffer-format.rst in the kernel). The first error stays.
type cpio struct {
	w    io.Writer
	ino  int
	dirs map[string]bool
	err  error
}

func (c *cpio) file(name string, mode int, data []byte) {
	c.dir(path.Dir(name))
	c.entry(name, modeFile|mode, data, 0, 0)
}

// dir writes a folder and those above it, once.
func (c *cpio) dir(name string) {
	if c.dirs[name] {
		return
	}
	c.dirs[name] = true
	c.dir(path.Dir(name))
	c.entry(name, modeDir|0o755, nil, 0, 0)
}

func (c *cpio) entry(name string, mode int, data []byte, major, minor int) {
	c.ino++
	c.raw(c.ino, name[1:], mode, data, major, minor)
}

func (c *cpio) trailer() { c.raw(0, "TRAILER!!!", 0, nil, 0, 0) }

func (c *cpio) raw(ino int, name string, mode int, data []byte, major, minor int) {
	if c.err != nil {
		return
	}
	var b bytes.Buffer
	b.WriteString("070701")
	for _, v := range []int{ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0} {
		fmt.Fprintf(&b, "%08x", v)
	}
	b.WriteString(name)
	b.WriteByte(0)
	pad(&b)
	if _, c.err = c.w.Write(b.Bytes()); c.err != nil {
		return
	}
	if _, c.err = c.w.Write(data); c.err != nil {
		return
	}
	_, c.err = c.w.Write(make([]byte, -len(data)&3))
}

// pad fills a buffer up to a multiple of four.
func pad(b *bytes.Buffer) { b.Write(make([]byte, -b.Len()&3)) }
