package names

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// The file holds what was learned, so that an agent that is restarted doesn't
// cut what its predecessor allowed. It is a matter of convenience: what can't
// be read is left out, with a note, and learned anew.

const (
	fileVersion = 1
	maxSaved    = 1 << 16 // entries, those that end last
	maxFileLen  = 32 << 20
)

type file struct {
	Version int     `json:"version"`
	Names   []Entry `json:"names"`
}

// load reads the file and returns what is wrong with it.
func (l *Learner) load() (note string) {
	if l.cfg.File == "" {
		return ""
	}
	entries, err := readFile(l.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		return fmt.Sprintf("names of an earlier run are not known: %v", err)
	}
	for i := range entries {
		e := &entries[i]
		if e.Name != normal(e.Name) || !printable(e.Name) || !e.Addr.IsValid() {
			note = fmt.Sprintf("names of an earlier run: %q is left out", e.Name)
			continue
		}
		// From now on by the monotonic clock: what the wall clock does later
		// neither ends nor prolongs it.
		now := l.now()
		e.Until = now.Add(min(e.Until.Sub(now), max(maxTTL, l.cfg.MinTTL)))
		l.put(e)
	}
	if len(l.fresh) > 0 {
		poke(l.wake)
	}
	return note
}

func readFile(path string) ([]Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileLen+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxFileLen {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, maxFileLen)
	}
	var x file
	if err := json.Unmarshal(data, &x); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if x.Version != fileVersion || len(x.Names) > maxSaved {
		return nil, fmt.Errorf("read %s: version %d with %d entries: want version %d with up to %d",
			path, x.Version, len(x.Names), fileVersion, maxSaved)
	}
	return x.Names, nil
}

// save writes the file soon after each change, until ctx ends, and then once
// more.
func (l *Learner) save(ctx context.Context) {
	if l.cfg.File == "" {
		return
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-l.unsaved:
			wait(ctx, saveSoon)
			began := time.Now()
			l.write()
			wait(ctx, saveRestTimes*time.Since(began))
		}
	}
	l.write()
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// write replaces the file. What the node enforces does not depend on it: if it
// fails, Note says so, and the next change tries again.
func (l *Learner) write() {
	entries := l.Entries()
	if len(entries) > maxSaved {
		slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(b.Until.UnixNano(), a.Until.UnixNano()) })
		entries = entries[:maxSaved]
	}
	tmp := l.cfg.File + ".new"
	data, err := json.Marshal(file{fileVersion, entries})
	if err == nil {
		err = os.WriteFile(tmp, data, 0o600)
	}
	if err == nil {
		err = os.Rename(tmp, l.cfg.File)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.note = ""; err != nil {
		l.note = fmt.Sprintf("names are not saved: %v", err)
	}
}
