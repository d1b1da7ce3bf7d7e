package verdict_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/tools/verdict"
)

func TestReadDomains(t *testing.T) {
	tests := []struct{ name, text, want, err string }{
		{"lists", `{"a.example": ["1.1.1.1", "::ffff:2.2.2.2", "fd00::1"], "b.example": []}`, "map[a.example:[1.1.1.1 2.2.2.2 fd00::1]]", ""},
		{"one address", `{"a.example": "1.1.1.1"}`, "map[a.example:[1.1.1.1]]", ""},
		{"YAML", "a.example:\n- 1.1.1.1\n", "map[a.example:[1.1.1.1]]", ""},
		{"empty", "", "map[]", ""},
		{"no address", `{"a.example": ["localhost"]}`, "", `a.example: "localhost": must be a valid IP address`},
		{"zone", `{"a.example": ["fe80::1%eth0"]}`, "", "must be a valid IP address"},
		{"a number", `{"a.example": 1}`, "", "want lists of addresses by name"},
		{"a list", `["1.1.1.1"]`, "", "want lists of addresses by name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dns")
			if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := verdict.ReadDomains(path)
			switch {
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("got %v, %v, want error with %q", got, err, tt.err)
			case tt.err == "" && (err != nil || fmt.Sprint(got) != tt.want):
				t.Errorf("got %v, %v, want %s", got, err, tt.want)
			}
		})
	}
}
