package chain

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// attempts bounds how often a file is made anew that others keep changing.
const attempts = 20

// edit replaces a file by what change makes of it, and keeps what was there in
// keep, unless that is "". If someone else replaces the file
// meanwhile, change is asked again with theirs. Where it fails, or would be asked
// for ever, theirs goes back as it was taken out.
func edit(file, keep string, change func(old []byte) ([]byte, error)) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read network configuration: %w", err)
	}
	inPlace := old // what is in the file unless others have been at it
	var failed error
	for n := 0; ; n++ {
		next := old
		if failed == nil {
			next, err = change(old)
			if err == nil && n == attempts {
				err = errors.New("others keep changing it")
			}
			if err == nil && keep != "" && !bytes.Equal(next, inPlace) {
				err = keepFirst(keep, old)
			}
			if err != nil {
				failed, next = fmt.Errorf("change %s: %w", file, err), old
			}
		}
		if bytes.Equal(next, inPlace) {
			return failed
		}
		was, err := exchange(file, next)
		if err != nil {
			return errors.Join(failed, err)
		}
		if bytes.Equal(was, inPlace) {
			return failed
		}
		old, inPlace = was, next
	}
}

// keepFirst keeps a configuration as its owner wrote it: the latest one without
// the plugin's call.
func keepFirst(keep string, data []byte) error {
	if bytes.Contains(data, []byte(Plugin)) {
		return nil
	}
	return write(keep, data)
}

// exchange puts data in a file's place and returns what was in it at that very
// moment.
func exchange(file string, data []byte) (was []byte, err error) {
	tmp, err := temporary(file, data)
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp)
	err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, file, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// A file system that can't exchange: the moment between is lost.
		if was, err = os.ReadFile(file); err == nil {
			err = os.Rename(tmp, file)
		}
		if err != nil {
			return nil, fmt.Errorf("replace %s: %w", file, err)
		}
		return was, syncDir(file)
	}
	if err != nil {
		return nil, fmt.Errorf("replace %s: %w", file, err)
	}
	if was, err = os.ReadFile(tmp); err != nil {
		return nil, fmt.Errorf("read what was replaced: %w", err)
	}
	return was, syncDir(file)
}

// write puts data into a file, whole or not at all.
func write(file string, data []byte) error {
	tmp, err := temporary(file, data)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", file, err), os.Remove(tmp))
	}
	return syncDir(file)
}

// temporary writes data beside file under a name that no runtime reads, with the
// rights of file if it is there.
func temporary(file string, data []byte) (name string, err error) {
	mode := fs.FileMode(0o600)
	if st, err := os.Stat(strings.TrimSuffix(file, kept)); err == nil {
		mode = st.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*.sluice")
	if err != nil {
		return "", fmt.Errorf("create temporary file: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return "", errors.Join(fmt.Errorf("write temporary file: %w", err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// syncDir makes a rename survive a crash.
func syncDir(file string) error {
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// replaceConf makes a list of a single configuration. The list is there before
// the single one goes, which comes first where both are. A list of that name that
// others have made, and nobody reads, is kept.
func replaceConf(file string, entry map[string]any) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read network configuration: %w", err)
	}
	data, err := wrap(old, entry)
	if err != nil {
		return fmt.Errorf("change %s: %w", file, err)
	}
	list := strings.TrimSuffix(file, filepath.Ext(file)) + ".conflist"
	if there, err := os.ReadFile(list); err == nil {
		if _, ok := madeOf(list, there); !ok {
			if was, err := before(list, there); err == nil {
				there = was
			}
			if err := write(list+kept, there); err != nil {
				return err
			}
		}
	}
	if err := write(list, data); err != nil {
		return err
	}
	if err := os.Rename(file, file+kept); err != nil {
		return fmt.Errorf("keep %s: %w", file, err)
	}
	return syncDir(file)
}

// installBinary copies the plugin, unless it is there already.
func installBinary(o Options) error {
	data, err := os.ReadFile(o.Binary)
	if err != nil {
		return fmt.Errorf("read plugin: %w", err)
	}
	to := filepath.Join(o.BinDir, Plugin)
	if there, err := os.ReadFile(to); err == nil && bytes.Equal(there, data) {
		return nil
	}
	if err := os.MkdirAll(o.BinDir, 0o755); err != nil {
		return fmt.Errorf("create plugin folder: %w", err)
	}
	tmp, err := temporary(to, data)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), os.Rename(tmp, to)); err != nil {
		return errors.Join(fmt.Errorf("install plugin: %w", err), os.Remove(tmp))
	}
	return syncDir(to)
}

func removeBinary(o Options) error {
	err := os.Remove(filepath.Join(o.BinDir, Plugin))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove plugin: %w", err)
	}
	return nil
}
