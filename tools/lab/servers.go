package lab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/sluice-net/sluice/bench/netlab"
)

// service is one address that is served. Pods in the host's network may share
// one.
type service struct {
	netns string
	addr  netip.Addr
	port  Port // of SCTP number 0: one watch sees all ports
}

type server struct {
	io.Closer
	users int
}

// servers are the lab's running servers.
type servers map[service]*server

// open serves a port at an address of ns, or shares the server that does. SCTP
// INITs are told to arrived.
func (s servers) open(ns *netlab.Namespace, addr netip.Addr, port Port, arrived func(netlab.SCTPInit)) (service, error) {
	if port.Proto == "SCTP" {
		port.Number = 0
	}
	at := service{ns.Name(), addr, port}
	if running := s[at]; running != nil {
		running.users++
		return at, nil
	}
	var c io.Closer
	var err error
	switch port.Proto {
	case "TCP":
		c, err = ns.EchoTCP(netip.AddrPortFrom(addr, port.Number))
	case "UDP":
		c, err = ns.EchoUDP(netip.AddrPortFrom(addr, port.Number))
	case "SCTP":
		c, err = ns.WatchSCTP(addr, arrived)
	default:
		err = fmt.Errorf("no server for protocol %q", port.Proto)
	}
	if err != nil {
		return at, err
	}
	s[at] = &server{Closer: c, users: 1}
	return at, nil
}

// release closes a server with its last user.
func (s servers) release(at service) error {
	running := s[at]
	if running == nil {
		return nil
	}
	if running.users--; running.users > 0 {
		return nil
	}
	delete(s, at)
	return running.Close()
}

func (s servers) closeAll() error {
	var errs []error
	for _, running := range s {
		errs = append(errs, running.Close())
	}
	clear(s)
	return errors.Join(errs...)
}
