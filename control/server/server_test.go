package server_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/server"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A request that is under way when the server ends is told so, and answered.
func TestEnd(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	l, asked, done := listen(t), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- server.Run(ctx, l, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(asked)
			<-r.Context().Done()
			_, _ = io.WriteString(w, "the end")
		})})
	}()
	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- string(body)
	}()
	<-asked
	stop()
	if got := <-answer; got != "the end" {
		t.Errorf("answer %q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

// A request that never ends doesn't hold the server back.
func TestEndWithoutAnswer(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	l, asked, release, done := listen(t), make(chan struct{}), make(chan struct{}), make(chan error, 1)
	defer close(release)
	go func() {
		done <- server.Run(ctx, l, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(asked)
			<-release
		})})
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-asked
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF && (err == nil || !strings.Contains(err.Error(), "reset")) {
		t.Errorf("the connection stays: %v", err)
	}
}

// A listener that fails ends it with an error.
func TestFails(t *testing.T) {
	l := listen(t)
	l.Close()
	if err := server.Run(t.Context(), l, &http.Server{}); err == nil {
		t.Error("no error")
	}
}
