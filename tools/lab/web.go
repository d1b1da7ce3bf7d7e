package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
)

func webPath(name string) string { return filepath.Join(dirOf(name), "web.sock") }

// webDoor carries browsers to the agent's web page: the agent lives in a network
// of its own, where no browser is.
type webDoor struct {
	listener net.Listener
	path     string // of the agent's socket
	conns    sync.WaitGroup
}

func openWebDoor(addr, path string) (*webDoor, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for browsers: %w", err)
	}
	d := &webDoor{listener: l, path: path}
	d.conns.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				d.conns.Go(func() { d.carry(c) })
			}
		}
	})
	return d, nil
}

func (d *webDoor) carry(c net.Conn) {
	defer c.Close()
	agent, err := net.Dial("unix", d.path)
	if err != nil {
		return // it is on its way up or down: the browser tries again
	}
	defer agent.Close()
	done := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(agent, c); done <- struct{}{} }()
	go func() { _, _ = io.Copy(c, agent); done <- struct{}{} }()
	<-done // closing both ends the other
}

// WebAddr is where the agent's web page is served, "" for nowhere.
func (l *Lab) WebAddr() string {
	if l.web == nil {
		return ""
	}
	return l.web.listener.Addr().String()
}
