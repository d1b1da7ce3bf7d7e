package xdpprog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// podPoints are the points of a pod's link.
var podPoints = [...]Point{PodIngress, PodEgress}

// Wall is a program that drops every frame. It closes links of pods that no
// agent has attached yet.
type Wall struct{ prog *ebpf.Program }

// NewWall loads the program.
func NewWall() (*Wall, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sluice_wall", Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* TC_ACT_SHOT */), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load program that closes links: %w", err)
	}
	return &Wall{prog}, nil
}

// FD is the program's descriptor, for clsact filters.
func (w *Wall) FD() int { return w.prog.FD() }

// Close releases the program; links that it closes stay closed.
func (w *Wall) Close() error { return w.prog.Close() }

// Block closes both directions of a link, and pins that where Attach looks for
// what an earlier agent left: an agent that attaches the link takes over in one
// step. A link that has programs already, an agent's or these, stays as it is.
// ErrNoTCX says that the kernel needs filters for it.
func (w *Wall) Block(pinPath string, ifindex int) error {
	if err := CheckPinPath(pinPath); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(pinPath, "links"), 0o700); err != nil {
		return fmt.Errorf("create pin directory: %w", err)
	}
	for _, p := range podPoints {
		if err := w.block(pinPath, p, ifindex); err != nil {
			return fmt.Errorf("close %s of link %d: %w", p, ifindex, err)
		}
	}
	return nil
}

func (w *Wall) block(pinPath string, p Point, ifindex int) error {
	pin := pinOf(pinPath, p, ifindex)
	switch at, err := pinnedTo(pin); {
	case err == nil && at == ifindex:
		return nil
	case err == nil: // of a device that has gone
		if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove stale pin: %w", err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	at := ebpf.AttachTCXIngress
	if p == PodEgress {
		at = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: w.prog, Attach: at})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return ErrNoTCX
	}
	if err != nil {
		return err
	}
	err = l.Pin(pin)
	if errors.Is(err, unix.EEXIST) {
		err = nil // an agent came first; its program judges from here on
	}
	return errors.Join(err, l.Close())
}

// Guarded reports whether both directions of a link carry programs that an
// agent or Block has pinned.
func Guarded(pinPath string, ifindex int) (bool, error) {
	for _, p := range podPoints {
		at, err := pinnedTo(pinOf(pinPath, p, ifindex))
		if errors.Is(err, os.ErrNotExist) || err == nil && at != ifindex {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// SweepPins removes the pins of programs of pods' links that have gone.
func SweepPins(pinPath string) error {
	dir := filepath.Join(pinPath, "links")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	var errs []error
	for _, e := range entries {
		pin := filepath.Join(dir, e.Name())
		if at, err := pinnedTo(pin); isPodPin(e.Name()) && err == nil && at == 0 {
			if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("remove stale pin: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

func isPodPin(name string) bool {
	for _, p := range podPoints {
		if strings.HasPrefix(name, p.String()+"-") {
			return true
		}
	}
	return false
}

// pinnedTo returns the device that a pinned tcx link is attached to, 0 if that
// has gone.
func pinnedTo(pin string) (int, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return 0, fmt.Errorf("open pin %s: %w", filepath.Base(pin), err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return 0, fmt.Errorf("look at pin %s: %w", filepath.Base(pin), err)
	}
	if t := info.TCX(); t != nil {
		return int(t.Ifindex), nil
	}
	return 0, nil
}

func pinOf(pinPath string, p Point, ifindex int) string {
	return filepath.Join(pinPath, "links", p.String()+"-"+strconv.Itoa(ifindex))
}
