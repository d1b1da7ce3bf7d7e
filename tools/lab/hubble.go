package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// HubbleSocket is where clients of Hubble's API find the agent of a node, or the
// lab that came up first where there is none.
const HubbleSocket = "/run/sluice/hubble.sock"

// HubblePath returns where a lab serves Hubble's API in any case.
func (l *Lab) HubblePath() string { return hubblePath(l.opts.Name) }

// linkHubble puts the lab's socket at HubbleSocket, unless somebody answers
// there. To be without it is no fault: the lab has a path of its own.
func linkHubble(name string) {
	if c, err := net.Dial("unix", HubbleSocket); err == nil {
		c.Close()
		return
	}
	if target, err := os.Readlink(HubbleSocket); err == nil {
		if _, err := os.Stat(filepath.Dir(target)); err == nil && target != hubblePath(name) {
			return // that of a lab that is coming up
		}
		os.Remove(HubbleSocket)
	}
	os.Symlink(hubblePath(name), HubbleSocket)
}

// unlinkHubble takes it away if it is the lab's.
func unlinkHubble(name string) error {
	if target, err := os.Readlink(HubbleSocket); err != nil || target != hubblePath(name) {
		return nil
	}
	if err := os.Remove(HubbleSocket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove link to Hubble socket: %w", err)
	}
	return nil
}
