package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"unicode"
	"unicode/utf8"
)

// screen is a terminal that shows what others wrote: names in manifests and files
// that were handed in, what a server says. What would do something to the terminal
// instead of being shown is spelled out, but for a painter's colours. What is no
// terminal gets all as it is.
type screen struct {
	w io.Writer

	mu   sync.Mutex // guards what follows
	held []byte     // the beginning of a character or a colour
}

// onScreen returns what to write to instead of w.
func onScreen(w io.Writer) io.Writer {
	if _, done := w.(*screen); done || !isTerminal(w) {
		return w
	}
	return &screen{w: w}
}

// command does something to a terminal; nothing to what is none.
func command(w io.Writer, sequence string) error {
	if s, ok := w.(*screen); ok {
		_, err := io.WriteString(s.w, sequence)
		return err
	}
	return nil
}

// colours are all that a painter writes.
var colours = []string{"\x1b[" + red + "m", "\x1b[" + green + "m", "\x1b[" + yellow + "m", "\x1b[" + bold + "m", "\x1b[0m"}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := append(s.held, p...)
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		n := 1
		switch c := b[0]; {
		case c == '\n' || c == '\t' || c >= ' ' && c < 0x7f:
			out = append(out, c)
		case c == '\x1b':
			var begun bool
			if n, begun = colour(b); begun {
				s.held = bytes.Clone(b)
				return s.write(out, len(p))
			}
			if n > 0 {
				out = append(out, b[:n]...)
				break
			}
			n = 1
			out = append(out, `\x1b`...)
		case c < utf8.RuneSelf:
			out = fmt.Appendf(out, `\x%02x`, c)
		case !utf8.FullRune(b):
			s.held = bytes.Clone(b)
			return s.write(out, len(p))
		default:
			var r rune
			switch r, n = utf8.DecodeRune(b); {
			case r == utf8.RuneError && n == 1:
				out = fmt.Appendf(out, `\x%02x`, c)
			case unicode.IsPrint(r):
				out = append(out, b[:n]...)
			default:
				out = fmt.Appendf(out, `\u%04x`, r)
			}
		}
		b = b[n:]
	}
	s.held = nil
	return s.write(out, len(p))
}

// write writes what became of n bytes.
func (s *screen) write(out []byte, n int) (int, error) {
	if _, err := s.w.Write(out); err != nil {
		return 0, err
	}
	return n, nil
}

// colour returns the length of the colour that b begins with, 0 if none; begun says
// that b may be the beginning of one.
func colour(b []byte) (n int, begun bool) {
	for _, c := range colours {
		if bytes.HasPrefix(b, []byte(c)) {
			return len(c), false
		}
		if bytes.HasPrefix([]byte(c), b) {
			return 0, true
		}
	}
	return 0, false
}
