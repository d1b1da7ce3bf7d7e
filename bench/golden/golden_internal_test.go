package golden

import "testing"

func TestDifference(t *testing.T) {
	for _, c := range []struct {
		got, want, g, w string
		line            int
	}{
		{"a\nb\n", "a\nb\n", "", "", 0},
		{"", "", "", "", 0},
		{"a\nc\n", "a\nb\n", "c", "b", 2},
		{"a\nb", "a\nb\n", "(end)", "", 3},
		{"a\nb\nc", "a\nb", "c", "(end)", 3},
	} {
		if line, g, w := difference([]byte(c.got), []byte(c.want)); line != c.line || g != c.g || w != c.w {
			t.Errorf("%q and %q: line %d, %q and %q", c.got, c.want, line, g, w)
		}
	}
}
