package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal makes stdout and stderr a terminal until the returned function ends it,
// which returns what was written.
func terminal(t *testing.T) (end func() string) {
	t.Helper()
	outer, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	fd := int(outer.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	inner, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = inner, inner
	shown := make(chan string)
	go func() {
		b, _ := io.ReadAll(outer) // ends with an error once nobody has it open inside
		shown <- string(b)
	}()
	return func() string {
		os.Stdout, os.Stderr = stdout, stderr
		inner.Close()
		defer outer.Close()
		return <-shown
	}
}

// Names in manifests of others do nothing to the terminal of who looks at them.
func TestNamesOnTerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	file := filepath.Join(t.TempDir(), "m.yaml")
	text := `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: "p\e[2Jq\rr\u202es\u009bt", namespace: shop}, spec: {podSelector: {}}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	end := terminal(t)
	code := run([]string{"policy", "lint", "-f", file})
	got := end()
	if code == 0 || !strings.Contains(got, `shop/p\x1b[2Jq\x0dr\u202es\u009bt`) || !strings.Contains(got, "\x1b["+red+"m") {
		t.Errorf("code %d, shown %q", code, got)
	}
	if strings.ContainsAny(strings.ReplaceAll(got, "\r\n", "\n"), "\r\u202e\u009b") || strings.Contains(got, "\x1b[2J") {
		t.Errorf("shown %q", got)
	}
}

// However what is written comes in pieces, the same is shown.
func TestScreenPieces(t *testing.T) {
	text := painter(true).paint(bold, "ä…") + "\x1b[1;31m\x1b\x1b[31m\x1b[0m\xff\xc3(\u2028×\x1b["
	want := "\x1b[01mä…\x1b[0m" + `\x1b[1;31m\x1b` + "\x1b[31m\x1b[0m" + `\xff\xc3(\u2028×`
	for size := 1; size <= len(text); size++ {
		var out bytes.Buffer
		s := &screen{w: &out}
		for at := 0; at < len(text); at += size {
			piece := text[at:min(at+size, len(text))]
			if n, err := s.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		if out.String() != want {
			t.Errorf("in pieces of %d: %q, want %q", size, out.String(), want)
		}
	}
}
