package chain

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestEditGivesUp has the owner of a file write each time that it is to be changed,
// more often than that is tried, and has a change fail half way: the owner's last
// version is in the file afterwards.
func TestEditGivesUp(t *testing.T) {
	for what, fails := range map[string]int{"others keep changing it": attempts + 5, "a change fails": 3} {
		file, last, n := filepath.Join(t.TempDir(), "x"), "first", 0
		if err := os.WriteFile(file, []byte(last), 0o600); err != nil {
			t.Fatal(err)
		}
		err := edit(file, "", func(old []byte) ([]byte, error) {
			if n++; n < fails {
				last = fmt.Sprintf("version %d", n)
				if err := os.WriteFile(file, []byte(last), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if n < attempts {
				return nil, errors.New("not what was expected")
			}
			return append(old, " and ours"...), nil
		})
		if err == nil {
			t.Errorf("%s: no error", what)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != last {
			t.Errorf("%s: %q is left, want %q: %v", what, got, last, err)
		}
	}
}
