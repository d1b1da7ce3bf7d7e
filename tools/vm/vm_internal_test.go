package vm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestNewest(t *testing.T) {
	names := []string{
		"linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64", "linux-image-6.1.0-50-amd64",
		"linux-image-6.18.15+deb13-cloud-amd64", "linux-image-6.18.9+deb13-cloud-amd64",
		"linux-image-6.18.20+deb13-cloud-amd64-unsigned", "linux-image-7.3.4+deb13-cloud-amd64", "linux-image-cloud-amd64",
		"linux-image-5.15.0-25-generic", "linux-image-5.15.0-164-generic", "linux-image-unsigned-5.15.0-170-generic",
		"linux-image-5.15.0-1100-gcp",
	}
	for _, c := range []struct{ series, flavour, want string }{
		{"6.1", "-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64"},
		{"6.18", "-cloud-amd64", "linux-image-6.18.15+deb13-cloud-amd64"},
		{"", "-cloud-amd64", "linux-image-7.3.4+deb13-cloud-amd64"},
		{"5.15", "-generic", "linux-image-5.15.0-164-generic"},
		{"6.16", "-cloud-amd64", ""},
	} {
		if got := newest(names, c.series, c.flavour); got != c.want {
			t.Errorf("newest %q%s: %q, want %q", c.series, c.flavour, got, c.want)
		}
	}
}

func TestPartsOf(t *testing.T) {
	got := partsOf("linux-image-x\n  Depends: linux-binary-x\n  Depends: linux-modules-x\n  Depends: kmod\n |Depends: linux-modules-y\n")
	if want := []string{"linux-binary-x", "linux-modules-x"}; !slices.Equal(got, want) {
		t.Errorf("parts %q, want %q", got, want)
	}
}

// TestCPIO checks the archive's bytes against the format's rules: hexadecimal
// heads, names and data on boundaries of four, folders before what is in them.
func TestCPIO(t *testing.T) {
	var buf bytes.Buffer
	c := &cpio{w: &buf, dirs: map[string]bool{"/": true}}
	c.file("/a/b/file", 0o755, []byte("hello"))
	c.file("/a/c", 0o600, nil)
	c.trailer()
	if c.err != nil {
		t.Fatal(c.err)
	}
	var names []string
	for rest := buf.Bytes(); len(rest) > 0; {
		if string(rest[:6]) != "070701" {
			t.Fatalf("magic %q", rest[:6])
		}
		var field [13]int
		for i := range field {
			if _, err := fmt.Sscanf(string(rest[6+8*i:14+8*i]), "%08x", &field[i]); err != nil {
				t.Fatal(err)
			}
		}
		size, length := field[6], field[11]
		name := string(rest[110 : 110+length-1])
		names = append(names, name)
		at := (110 + length + 3) &^ 3
		if name == "a/b/file" && (string(rest[at:at+size]) != "hello" || field[1] != 0o100755) {
			t.Errorf("file of mode %o holds %q", field[1], rest[at:at+size])
		}
		rest = rest[at+(size+3)&^3:]
	}
	if want := []string{"a", "a/b", "a/b/file", "a/c", "TRAILER!!!"}; !slices.Equal(names, want) {
		t.Errorf("entries %q, want %q", names, want)
	}
}

func TestConsole(t *testing.T) {
	m := Machine{Jobs: []Job{{Name: "one"}, {Name: "two"}}}
	results, faults, booted, done := m.read(strings.NewReader("[ 1.0] virtio\r\n" + MarkBooted + "\r\n" +
		"[ 2.0] noise" + MarkResult + `{"Name":"one","Exit":3}` + "\r\n[ 3.0] BUG: kernel NULL pointer dereference\r\n"))
	if results[0].Exit != 3 || results[1].Exit != -1 || len(faults) != 1 || !booted || done {
		t.Errorf("results %+v, faults %q, done %t", results, faults, done)
	}
}
