package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// An answer that takes longer has been lost for good.
const answerPatience = 2 * time.Second

// Request is one TCP flow on which a byte goes one way, and then a byte the
// other way.
type Request struct {
	Client, Server End
	To             netip.AddrPort
	Warmup         time.Duration
	Duration       time.Duration
}

// RequestResult is the round trips of the measured time.
type RequestResult struct {
	Latency *Histogram
	Elapsed time.Duration
}

// Run measures round trips.
func (q Request) Run(ctx context.Context) (r RequestResult, err error) {
	c := newCrew(ctx)
	defer func() { err = c.dismiss(err) }()
	listening, done := make(chan struct{}), make(chan RequestResult, 1)
	c.hire(q.Server, "request server", func() error { return answer(c, q.Server, q.To, listening) })
	if _, err := await(c, listening); err != nil {
		return r, err
	}
	c.hire(q.Client, "request client", func() error {
		r, err := q.ask(c)
		if err == nil {
			done <- r
		}
		return err
	})
	return await(c, done)
}

func (q Request) ask(c *crew) (r RequestResult, err error) {
	fd, err := q.Client.dial(q.To)
	if err != nil {
		return r, err
	}
	defer unix.Close(fd)
	r.Latency = &Histogram{}
	buf := []byte{0}
	begin := time.Now().Add(q.Warmup)
	end := begin.Add(q.Duration)
	for last := time.Now(); last.Before(end); {
		if c.stopped() {
			return r, context.Cause(c.ctx)
		}
		if err := exchange(fd, buf); err != nil {
			return r, err
		}
		now := time.Now()
		if last.After(begin) {
			r.Latency.Record(now.Sub(last))
		}
		last = now
	}
	r.Elapsed = q.Duration
	if r.Latency.Count() == 0 {
		return r, fmt.Errorf("requests to %v: %w", q.To, ErrNothing)
	}
	return r, nil
}

// exchange sends one byte and waits for one.
func exchange(fd int, buf []byte) error {
	for {
		_, err := unix.Write(fd, buf)
		if err == nil {
			break
		}
		if !again(err) {
			return fmt.Errorf("send request: %w", err)
		}
	}
	for waited := time.Duration(0); ; waited += lookUp {
		n, err := unix.Read(fd, buf)
		switch {
		case err == nil && n == 1:
			return nil
		case err == nil:
			return errors.New("connection closed by server")
		case !again(err):
			return fmt.Errorf("receive answer: %w", err)
		case waited >= answerPatience:
			return fmt.Errorf("no answer in %v", answerPatience)
		}
	}
}

// answer accepts one connection and sends each byte back.
func answer(c *crew, e End, at netip.AddrPort, listening chan<- struct{}) error {
	l, err := e.listen(at)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	close(listening)
	fd, err := accept(l, c.stopped)
	if err != nil || fd < 0 {
		return err
	}
	defer unix.Close(fd)
	buf := []byte{0}
	for !c.stopped() {
		n, err := unix.Read(fd, buf)
		switch {
		case closed(err) || err == nil && n == 0:
			return nil
		case err == nil:
			_, err = unix.Write(fd, buf)
		}
		if err != nil && !again(err) {
			return fmt.Errorf("answer: %w", err)
		}
	}
	return nil
}
