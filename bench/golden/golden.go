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
	"strings"
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
	if line, g, w := difference(got.Bytes(), want); line > 0 {
		t.Errorf("%s: line %d is\n%s\nwant\n%s", path, line, g, w)
	}
	return got.Bytes()
}

// difference is the first line that differs, 0 if none does.
func difference(got, want []byte) (line int, g, w string) {
	a, b := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(a), len(b)) {
		g, w = "(end)", "(end)"
		if i < len(a) {
			g = a[i]
		}
		if i < len(b) {
			w = b[i]
		}
		if g != w {
			return i + 1, g, w
		}
	}
	return 0, "", ""
}
