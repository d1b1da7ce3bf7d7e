package webtest_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser is a headless Chromium with one page, driven through its debugging
// pipe (Chrome DevTools Protocol: JSON, each message ended by a NUL byte).
type browser struct {
	*testing.T
	out     *os.File
	session string

	mu      sync.Mutex // guards what follows
	next    int
	answers map[int]chan json.RawMessage
	faults  []string // errors that the page or its console told of
	asked   []string // URLs that the page requested
}

// patience bounds what a test waits for: it says nothing about speed.
const patience = 60 * time.Second

// newBrowser starts Chromium with a profile of its own.
func newBrowser(t *testing.T, path string) *browser {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-web")
	if err != nil {
		t.Fatal(err)
	}
	toR, toW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromR, fromW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--hide-scrollbars", "--user-data-dir="+dir, "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{toR, fromW} // descriptors 3 and 4
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	toR.Close()
	fromW.Close()
	b := &browser{T: t, out: toW, answers: map[int]chan json.RawMessage{}}
	t.Cleanup(func() {
		toW.Close() // Chromium ends with its pipe
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		fromR.Close()
		for range 50 { // its helpers may write into the profile for a moment longer
			if os.RemoveAll(dir) == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if t.Failed() {
			t.Logf("chromium: %s", log.String())
		}
	})
	go b.listen(fromR)
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network", "Performance"} {
		b.call(domain+".enable", nil, nil)
	}
	b.size(1440, 900)
	return b
}

func (b *browser) listen(from *os.File) {
	in := bufio.NewReaderSize(from, 1<<20)
	for {
		raw, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var m struct {
			ID     int
			Method string
			Params struct {
				Entry            struct{ Level, Text, URL string }
				ExceptionDetails struct {
					Text      string
					Exception struct{ Description string }
				}
				Request struct{ URL string }
			}
		}
		if json.Unmarshal(raw[:len(raw)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		switch m.Method {
		case "Log.entryAdded":
			if m.Params.Entry.Level == "error" {
				b.faults = append(b.faults, m.Params.Entry.Text+" "+m.Params.Entry.URL)
			}
		case "Runtime.exceptionThrown":
			b.faults = append(b.faults, m.Params.ExceptionDetails.Text+" "+m.Params.ExceptionDetails.Exception.Description)
		case "Network.requestWillBeSent":
			b.asked = append(b.asked, m.Params.Request.URL)
		}
		if c := b.answers[m.ID]; c != nil {
			delete(b.answers, m.ID)
			c <- raw[:len(raw)-1]
		}
		b.mu.Unlock()
	}
}

// call calls a method and decodes its result.
func (b *browser) call(method string, params, result any) {
	b.Helper()
	c := make(chan json.RawMessage, 1)
	b.mu.Lock()
	b.next++
	id := b.next
	b.answers[id] = c
	b.mu.Unlock()
	m := map[string]any{"id": id, "method": method}
	if params != nil {
		m["params"] = params
	}
	if b.session != "" {
		m["sessionId"] = b.session
	}
	text, err := json.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := b.out.Write(append(text, 0)); err != nil {
		b.Fatalf("%s: %v", method, err)
	}
	select {
	case raw := <-c:
		var answer struct {
			Result json.RawMessage
			Error  struct{ Message string }
		}
		if err := json.Unmarshal(raw, &answer); err != nil {
			b.Fatal(err)
		}
		if answer.Error.Message != "" {
			b.Fatalf("%s: %s", method, answer.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(answer.Result, result); err != nil {
				b.Fatalf("%s: %v", method, err)
			}
		}
	case <-time.After(patience):
		b.Fatalf("%s: no answer", method)
	}
}

// eval evaluates an expression in the page.
func eval[T any](b *browser, expr string) T {
	b.Helper()
	var r struct {
		Result struct {
			Value       T
			Description string
		}
		ExceptionDetails *struct{ Text string }
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expr, "returnByValue": true, "awaitPromise": true}, &r)
	if r.ExceptionDetails != nil {
		b.Fatalf("%s: %s %s", expr, r.ExceptionDetails.Text, r.Result.Description)
	}
	return r.Result.Value
}

// eventually waits until an expression is true in the page.
func (b *browser) eventually(expr string) {
	b.Helper()
	for end := time.Now().Add(patience); !eval[bool](b, expr); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("not within %v: %s\n%s", patience, expr, eval[string](b, "document.body.innerText"))
		}
	}
}

// click clicks into the middle of what a selector finds, as a mouse does; at an
// edge where no card lies above it.
func (b *browser) click(selector string) {
	b.Helper()
	at := eval[[]float64](b, fmt.Sprintf(`(() => {
		const found = [...document.querySelectorAll(%q)];
		for (const e of found) {
			const p = e.querySelector("path.hit");
			if (!p) continue;
			for (const part of [.4, .5, .3, .6, .2, .7, .1, .8, .9]) {
				const q = p.getPointAtLength(p.getTotalLength() * part).matrixTransform(p.getScreenCTM());
				if (e.contains(document.elementFromPoint(q.x, q.y))) return [q.x, q.y];
			}
		}
		if (!found.length) return [];
		found[0].scrollIntoView({block: "nearest"});
		const r = found[0].getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`, selector))
	if len(at) != 2 {
		b.Fatalf("nothing to click at %s", selector)
	}
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		b.call("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}, nil)
	}
}

// clickFor clicks until an expression is true: graph and list may move under the
// mouse while flows come in.
func (b *browser) clickFor(selector, expr string) {
	b.Helper()
	for end := time.Now().Add(patience); ; {
		b.click(selector)
		for again := time.Now().Add(time.Second); time.Now().Before(again); time.Sleep(50 * time.Millisecond) {
			if eval[bool](b, expr) {
				return
			}
		}
		if time.Now().After(end) {
			b.Fatalf("not within %v of clicks at %s: %s\n%s", patience, selector, expr, eval[string](b, "document.body.innerText"))
		}
	}
}

func (b *browser) size(w, h int) {
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": w, "height": h, "deviceScaleFactor": 1, "mobile": false}, nil)
}

// scheme says which colours the system wants.
func (b *browser) scheme(name string) {
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": name}}}, nil)
}

// picture writes a screenshot for whoever wants to look, and returns it.
func (b *browser) picture(name string) []byte {
	b.Helper()
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		b.Fatal(err)
	}
	if dir := os.Getenv("SLUICE_WEB_PICTURES"); dir != "" {
		if err := os.WriteFile(dir+"/"+name+".png", png, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return png
}

// told returns what went wrong in the page, and what it asked for.
func (b *browser) told() (faults, asked []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.faults...), append([]string{}, b.asked...)
}
