package manifest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// After a change, Run waits until nothing has happened for quietTime, but not
// longer than patience.
const (
	quietTime = 20 * time.Millisecond
	patience  = 200 * time.Millisecond
)

// Run follows the path until ctx ends. After each load that found another
// content, or a fault, it calls onLoad, if not nil; State tells what it found.
func (s *Source) Run(ctx context.Context, onLoad func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", s.path, err)
	}
	defer w.Close()
	if err := s.watchAll(w); err != nil {
		return fmt.Errorf("watch %s: %w", s.path, err)
	}
	reload := func() {
		if changed, _ := s.Reload(); changed && onLoad != nil { // the fault is in State
			onLoad()
		}
	}
	reload() // what changed before the watch stood

	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	var since time.Time // of the first change not yet loaded
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.Events:
			if !ok {
				return fmt.Errorf("watch %s: watcher closed", s.path)
			}
			if !s.concerns(e) {
				continue
			}
			now := time.Now()
			if since.IsZero() {
				since = now
			}
			quiet.Reset(min(quietTime, max(0, patience-now.Sub(since))))
		case <-w.Errors:
			// Events were lost: as good as a change.
			since = time.Now()
			quiet.Reset(quietTime)
		case <-quiet.C:
			since = time.Time{}
			_ = s.watchAll(w) // a folder that has gone is reported by Reload
			reload()
		}
	}
}

// concerns tells changes below a folder from those of its neighbours. Of a
// file, the neighbours matter: it may be a link to one of them.
func (s *Source) concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	if e.Name == s.path || filepath.Dir(e.Name) != filepath.Dir(s.path) {
		return true
	}
	info, err := os.Stat(s.path)
	return err == nil && !info.IsDir()
}

// watchAll watches the path, all folders below it, its parent, where the path
// itself may be replaced, and, if it is a link, where it leads.
func (s *Source) watchAll(w *fsnotify.Watcher) error {
	if err := w.Add(filepath.Dir(s.path)); err != nil {
		return err
	}
	root, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return nil // until the parent says that it is back
	}
	info, err := os.Stat(root)
	if err != nil || !info.IsDir() {
		if root != s.path {
			return w.Add(filepath.Dir(root))
		}
		return nil
	}
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case d.IsDir() && p != root && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.IsDir():
			return w.Add(p)
		case d.Type()&fs.ModeSymlink != 0 && isManifest(d.Name()):
			if target, err := filepath.EvalSymlinks(p); err == nil {
				return w.Add(filepath.Dir(target))
			}
		}
		return nil
	})
}
