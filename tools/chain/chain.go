// Package chain puts the CNI plugin on a node: its binary into the runtime's
// folder, and a call of it behind the plugins of the network configuration
// that the runtime uses. It takes both away again.
//
// The configuration belongs to another CNI, which may rewrite it at any moment.
// So a file is exchanged, not overwritten (renameat2 with RENAME_EXCHANGE), and
// what came out is looked at: if it isn't what the new one was made from, the
// new one is made again. Readers see the old file or the new one, always whole.
// What was there first lies beside it, under a name that no runtime reads.
//
// It runs for milliseconds at a time and keeps nothing open.
package chain

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Plugin is the name of the plugin's binary, and its type in configurations.
const Plugin = "sluice-cni"

// kept is what the name of the file that was there first ends in.
const kept = ".before-sluice"

// ErrNoConfig says that the folder has no network configuration yet.
var ErrNoConfig = errors.New("no network configuration")

// Options say where things are.
type Options struct {
	BinDir  string // of the runtime's plugins
	ConfDir string // of its network configurations
	Binary  string // the plugin to install
	Entry   map[string]any
}

// Install puts the plugin and its call in place. Doing so again changes
// nothing, or what the options have changed.
func Install(o Options) error {
	unlock, err := lock(o.ConfDir)
	if err != nil {
		return err
	}
	defer unlock()
	// The binary first: a configuration must not name what isn't there.
	if err := installBinary(o); err != nil {
		return err
	}
	file, err := active(o.ConfDir)
	if err != nil {
		return err
	}
	if strings.HasSuffix(file, ".conflist") {
		return edit(file, file+kept, func(old []byte) ([]byte, error) { return addTo(old, o.Entry) })
	}
	return replaceConf(file, o.Entry)
}

// Uninstall takes the plugin's call out of every configuration in the folder
// that has it, then the binary away.
func Uninstall(o Options) error {
	unlock, err := lock(o.ConfDir)
	if errors.Is(err, fs.ErrNotExist) {
		return removeBinary(o)
	}
	if err != nil {
		return err
	}
	defer unlock()
	files, err := configs(o.ConfDir)
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read network configuration: %w", err)
		}
		if !bytes.Contains(data, []byte(Plugin)) {
			continue
		}
		if err := undo(file); err != nil {
			return err
		}
	}
	// What is kept of configurations that have gone, or have been written anew.
	stale, _ := filepath.Glob(filepath.Join(o.ConfDir, "*"+kept))
	for _, file := range stale {
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove kept configuration: %w", err)
		}
	}
	return removeBinary(o)
}

// undo takes the plugin's call out of one configuration. What was there first
// comes back to the byte, unless it has been changed since.
func undo(file string) error {
	now, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read network configuration: %w", err)
	}
	single, ok := madeOf(file, now)
	if !ok {
		return edit(file, "", func(now []byte) ([]byte, error) { return before(file, now) })
	}
	if _, err := os.Stat(single); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(single+kept, single); err != nil {
			return fmt.Errorf("put %s back: %w", single, err)
		}
	}
	err = os.Rename(file+kept, file) // another list that lay beside it
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Remove(file)
	}
	if err != nil {
		return fmt.Errorf("take %s away: %w", file, err)
	}
	return syncDir(file)
}

// before returns what a list is without the plugin's call.
func before(file string, now []byte) ([]byte, error) {
	if first, err := os.ReadFile(file + kept); err == nil {
		if again, err := addTo(first, entryOf(now)); err == nil && bytes.Equal(again, now) {
			return first, nil
		}
	}
	return removeFrom(now)
}

// madeOf returns the single configuration that the plugin's call has made a list of,
// if nobody has changed the list since.
func madeOf(file string, now []byte) (single string, ok bool) {
	for _, ext := range []string{".conf", ".json"} {
		single := strings.TrimSuffix(file, ".conflist") + ext
		for _, from := range []string{single + kept, single} {
			first, err := os.ReadFile(from)
			if err != nil {
				continue
			}
			if again, err := wrap(first, entryOf(now)); err == nil && bytes.Equal(again, now) {
				return single, true
			}
		}
	}
	return "", false
}

// active returns the configuration that runtimes use: the first by name.
func active(dir string) (string, error) {
	files, err := configs(dir)
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fmt.Errorf("look for network configurations in %s: %w", dir, ErrNoConfig)
	}
	return files[0], nil
}

// configs lists the files that runtimes read (libcni.ConfFiles), in their order.
func configs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list network configurations: %w", err)
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && slices.Contains([]string{".conf", ".conflist", ".json"}, ext) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(files)
	return files, nil
}

// lock keeps other installers of ours out until unlock is called.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder of network configurations: %w", err)
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), d.Close())
	}
	return func() { d.Close() }, nil
}
