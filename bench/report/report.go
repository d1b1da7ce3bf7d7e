// Package report keeps what a benchmark measured: a folder a run with the
// samples as JSON, a table, text for benchstat, a page of HTML that needs
// nothing else, and each of its plots as SVG and PNG; and it compares two such
// folders. It measures nothing and knows no system or workload by name: what it
// shows, it takes from the samples.
package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/plot"
	"github.com/sluice-net/sluice/bench/scenario"
)

// Folder is where the results of one run go.
type Folder struct{ path string }

// jsonFile is what the others can be made from again.
const jsonFile = "results.json"

// stamp names folders so that they sort by time.
const stamp = "2006-01-02T150405"

// Create makes the folder of a run that starts now, below parent, and sees that
// it can be written to.
func Create(parent string, now time.Time) (*Folder, error) {
	f := &Folder{filepath.Join(parent, now.Format(stamp))}
	for i := 2; ; i++ {
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return nil, fmt.Errorf("create folder for results: %w", err)
		}
		err := os.Mkdir(f.path, 0o755)
		if errors.Is(err, os.ErrExist) { // another run of the same second
			f.path = filepath.Join(parent, fmt.Sprintf("%s-%d", now.Format(stamp), i))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("create folder for results: %w", err)
		}
		break
	}
	if err := f.put(jsonFile, []byte("{}\n")); err != nil {
		return nil, errors.Join(err, os.RemoveAll(f.path))
	}
	return f, nil
}

// Open returns the folder of an earlier run.
func Open(path string) (*Folder, error) {
	if _, err := os.Stat(filepath.Join(path, jsonFile)); err != nil {
		return nil, fmt.Errorf("open folder of results: %w", err)
	}
	return &Folder{path}, nil
}

// Remove removes the folder of a run that came to nothing, and the one that it
// is in if that is empty.
func (f *Folder) Remove() error {
	err := os.RemoveAll(f.path)
	os.Remove(filepath.Dir(f.path)) // fails if there is more in it
	return err
}

// Path returns where the folder is.
func (f *Folder) Path() string { return f.path }

// Keep writes what has been measured so far, so that nothing can lose it.
func (f *Folder) Keep(r *scenario.Results) error {
	var b bytes.Buffer
	unfinished := *r
	if unfinished.Partial == "" {
		unfinished.Partial = "the run was not finished"
	}
	if err := unfinished.WriteJSON(&b); err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	return f.put(jsonFile, b.Bytes())
}

// Write writes everything.
func (f *Folder) Write(r *scenario.Results) error {
	errs := []error{
		f.write(jsonFile, r.WriteJSON),
		f.write("results.txt", func(out io.Writer) error { return WriteTable(out, r) }),
		f.write("benchstat.txt", r.WriteBenchstat),
		f.write("index.html", func(out io.Writer) error { return WriteHTML(out, r) }),
	}
	for _, p := range Plots(r) {
		errs = append(errs,
			f.write(p.Name+".svg", func(out io.Writer) error { return plot.SVG(out, p.Figure) }),
			f.write(p.Name+".png", func(out io.Writer) error { return plot.PNG(out, p.Figure) }))
	}
	return errors.Join(append(errs, f.give())...)
}

// WriteTable writes all numbers for people, and what they say of the targets.
func WriteTable(out io.Writer, r *scenario.Results) error {
	return errors.Join(r.WriteTable(out), WriteTargets(out, r))
}

func (f *Folder) write(name string, form func(io.Writer) error) error {
	var b bytes.Buffer
	if err := form(&b); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return f.put(name, b.Bytes())
}

// put writes a file as a whole or not at all: a full disk leaves what was there
// before.
func (f *Folder) put(name string, data []byte) (err error) {
	path := filepath.Join(f.path, name)
	defer func() {
		if err != nil {
			os.Remove(path + ".new")
			err = fmt.Errorf("write results: %w", err)
		}
	}()
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// give leaves the results to whoever owns the folder that they are in: the
// benchmark runs as root, but need not leave files that only root can delete.
func (f *Folder) give() error {
	var st unix.Stat_t
	above := filepath.Dir(filepath.Dir(filepath.Clean(f.path)))
	if err := unix.Stat(above, &st); err != nil || os.Geteuid() != 0 || st.Uid == 0 {
		return nil // nobody to give it to
	}
	files, err := filepath.Glob(filepath.Join(f.path, "*"))
	errs := []error{err, os.Chown(filepath.Dir(f.path), int(st.Uid), int(st.Gid)), os.Chown(f.path, int(st.Uid), int(st.Gid))}
	for _, file := range files {
		errs = append(errs, os.Chown(file, int(st.Uid), int(st.Gid)))
	}
	return errors.Join(errs...)
}

// Read reads the results in a folder, or those in a file of JSON.
func Read(path string) (*scenario.Results, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, jsonFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	r := &scenario.Results{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("read results %s: %w", path, err)
	}
	if len(r.Samples) == 0 {
		return nil, fmt.Errorf("read results %s: no samples in it", path)
	}
	return r, nil
}
