package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// file is a file of the image, as long as it is being made.
type file struct {
	name string // in the image, without the leading slash
	mode int64
	data []byte
}

// layer packs files, in their order, into a layer and returns it as it is and
// compressed.
func layer(files []file, when time.Time) (raw, zipped []byte, err error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		if err := writeFile(w, f.name, f.mode, when, f.data); err != nil {
			return nil, nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, nil, fmt.Errorf("write layer: %w", err)
	}
	var small bytes.Buffer
	z, err := gzip.NewWriterLevel(&small, gzip.BestCompression)
	if err != nil {
		return nil, nil, err
	}
	if _, err := z.Write(out.Bytes()); err != nil {
		return nil, nil, fmt.Errorf("compress layer: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, nil, fmt.Errorf("compress layer: %w", err)
	}
	return out.Bytes(), small.Bytes(), nil
}

func writeFile(w *tar.Writer, name string, mode int64, when time.Time, data []byte) error {
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), ModTime: when, Format: tar.FormatUSTAR})
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	return nil
}

// contents reads what goes into the image.
func contents(o Options, binaries string, sbom []byte) ([]file, error) {
	license, err := os.ReadFile(filepath.Join(o.Source, "LICENSE"))
	files := []file{{"LICENSE", 0o644, license}, {"sbom.spdx.json", 0o644, sbom}}
	for _, p := range programs {
		data, readErr := os.ReadFile(filepath.Join(binaries, p.name))
		err = errors.Join(err, readErr)
		files = append(files, file{p.name, 0o755, data})
	}
	if err != nil {
		return nil, fmt.Errorf("read contents: %w", err)
	}
	return files, nil
}
