// Package golden compares what a test has made with a file that is committed
// beside it, testdata/NAME.golden, and writes that file anew under -update. It is
// for tests only.
package golden

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Check fails the test if what write writes is not the file's content, and
// returns what it wrote.
func Check(t *testing.T, name string, write func(io.Writer) error) []byte {
	t.Helper()
	var got bytes.Buffer
	if err := write(&got); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got.Bytes(), want)
	}
	return got.Bytes()
}
