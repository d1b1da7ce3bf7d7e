package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	if _, ok := w.(*screen); ok {
		return true
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// What is done to a terminal (ECMA-48, 8.3.57, 8.3.39 and 8.3.41).
const (
	wipeLine   = "\r\x1b[K"
	wipeScreen = "\x1b[H\x1b[J"
)

// ANSI colours (ECMA-48, 8.3.117), all of one length.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "01"
)

// painter colours text, or leaves it as it is.
type painter bool

// painterFor paints on terminals, unless NO_COLOR says otherwise.
func painterFor(w io.Writer) painter {
	return painter(isTerminal(w) && os.Getenv("NO_COLOR") == "")
}

func (p painter) paint(colour, text string) string {
	if !p {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// progress shows on one line of a terminal what is being done. Anywhere else
// it shows nothing. Messages go on lines of their own.
type progress struct {
	w    io.Writer
	live bool

	mu    sync.Mutex
	shown bool
}

func newProgress(w io.Writer) *progress { return &progress{w: onScreen(w), live: isTerminal(w)} }

// stage replaces what is shown.
func (p *progress) stage(text string) {
	if !p.live {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = command(p.w, wipeLine)
	fmt.Fprint(p.w, "… ", text)
	p.shown = true
}

// done takes away what is shown.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
}

func (p *progress) wipe() {
	if p.shown {
		_ = command(p.w, wipeLine)
		p.shown = false
	}
}

// message writes a line.
func (p *progress) message(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
	fmt.Fprintln(p.w, text)
}
