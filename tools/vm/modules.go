package vm

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is a kernel module, decompressed.
type module struct {
	name string
	data []byte
}

// modules returns the named modules and all that they need, in an order in
// which they can be loaded. A name that the kernel has built in, or doesn't
// have at all, is left out: what needs it will say so.
func (k Kernel) modules(ctx context.Context, names []string) ([]module, error) {
	paths := make(map[string]string)
	err := filepath.WalkDir(k.Modules, func(path string, d fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok && err == nil && d.Type().IsRegular() {
			paths[canonical(name)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	var out []module
	seen := make(map[string]bool)
	var add func(name string) error
	add = func(name string) error {
		name = canonical(name)
		if seen[name] || paths[name] == "" {
			return nil
		}
		seen[name] = true
		data, err := decompress(ctx, paths[name])
		if err != nil {
			return fmt.Errorf("read module %s: %w", name, err)
		}
		needs, err := dependsOn(data)
		if err != nil {
			return fmt.Errorf("read module %s: %w", name, err)
		}
		for _, n := range needs {
			if err := add(n); err != nil {
				return err
			}
		}
		out = append(out, module{name, data})
		return nil
	}
	for _, n := range names {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// canonical is how the kernel writes a module's name.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// decompress reads a module file: plain, .xz or .zst.
func decompress(ctx context.Context, path string) ([]byte, error) {
	var cmd *exec.Cmd
	switch filepath.Ext(path) {
	case ".xz":
		cmd = exec.CommandContext(ctx, "xz", "-dc", path)
	case ".zst":
		cmd = exec.CommandContext(ctx, "zstd", "-qdc", path)
	default:
		return os.ReadFile(path)
	}
	return cmd.Output()
}

// dependsOn reads the names after "depends=" in a module's .modinfo section.
func dependsOn(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read ELF: %w", err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, nil
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read .modinfo: %w", err)
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}
