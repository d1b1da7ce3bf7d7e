package hubble

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// listenUnix listens with mode 0600, without a moment in which others could
// connect. A socket that nobody answers at is replaced.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create folder of Hubble socket: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen at %s: another server answers there", path)
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(fresh)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for Hubble clients: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(fresh, 0o600); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("put Hubble socket in place: %w", err), l.Close(), os.Remove(fresh))
	}
	return l, nil
}

// removeSocket removes the socket's file, unless a successor has replaced it:
// then somebody answers there.
func removeSocket(path string, l net.Listener) {
	_ = l.Close()
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return
	}
	_ = os.Remove(path)
}
