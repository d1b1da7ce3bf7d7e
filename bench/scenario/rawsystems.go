package scenario

import (
	"context"
	"errors"
	"io"

	"github.com/sluice-net/sluice/bench/traffic"
)

// xdpDropSystem drops at the first program that a frame meets.
var xdpDropSystem = System{
	Name:  "xdp-drop",
	About: "native XDP drop on pod A's host-side link",
	Start: func(_ context.Context, s *Stage) (Running, error) {
		r := &rawRunning{}
		err := s.Net.Host().Do(func() (err error) {
			in, _, err := linkIndex(s.Net.Host(), s.A.Link())
			if err == nil {
				err = r.sinkAt(in)
			}
			return err
		})
		return r, err
	},
}

// xdpRedirectSystem hands each frame from one pod's link to the other's.
var xdpRedirectSystem = System{
	Name:  "xdp-redirect",
	About: "native XDP redirect from pod A's host-side link to pod B's, XDP drop in pod B",
	Start: func(_ context.Context, s *Stage) (Running, error) {
		r := &rawRunning{}
		peer, _, err := linkIndex(s.B.Namespace(), "eth0")
		if err == nil {
			err = s.B.Namespace().Do(func() error { return r.sinkAt(peer) })
		}
		if err != nil {
			return nil, err
		}
		in, _, err1 := linkIndex(s.Net.Host(), s.A.Link())
		out, _, err2 := linkIndex(s.Net.Host(), s.B.Link())
		if err := errors.Join(err1, err2); err != nil {
			return nil, errors.Join(err, r.Stop())
		}
		err = s.Net.Host().Do(func() error {
			l, err := traffic.NewXDPRedirect(in, out)
			if err == nil {
				r.closers = append(r.closers, l)
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(err, r.Stop())
		}
		return r, nil
	},
}

// rawRunning is XDP programs, one of which counts what arrives.
type rawRunning struct {
	sink    *traffic.XDPDrop
	closers []io.Closer
}

// sinkAt drops and counts at a link of the calling thread's namespace.
func (r *rawRunning) sinkAt(ifindex int) (err error) {
	if r.sink, err = traffic.NewXDPDrop(ifindex); err == nil {
		r.closers = append(r.closers, r.sink)
	}
	return err
}

func (r *rawRunning) Modes() map[string]string { return map[string]string{"xdp": "native"} }

func (r *rawRunning) Received() (uint64, error) { return r.sink.Received() }

func (r *rawRunning) Stop() error {
	var errs []error
	for _, c := range r.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
