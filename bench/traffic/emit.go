package traffic

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

// packetEmitter sends by sendmmsg out of a packet socket.
type packetEmitter struct {
	fd    int
	bufs  [batchSize][]byte
	m     *message
	parts [batchSize][]byte
}

func newPacketEmitter(ifindex, longest int) (*packetEmitter, error) {
	fd, err := packetSocket(ifindex)
	if err != nil {
		return nil, err
	}
	e := &packetEmitter{fd: fd, m: newMessage(nil)}
	for i := range e.bufs {
		e.bufs[i] = make([]byte, longest)
	}
	return e, nil
}

func (e *packetEmitter) buffer(i int) []byte { return e.bufs[i] }

func (e *packetEmitter) emit(lengths []int) error {
	for i, n := range lengths {
		e.parts[i] = e.bufs[i][:n]
	}
	for parts := e.parts[:len(lengths)]; len(parts) > 0; {
		e.m.carry(parts)
		sent, err := e.m.send(e.fd, len(parts))
		if err != nil && !again(err) && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("send frames: %w", err)
		}
		parts = parts[min(max(sent, 1), len(parts)):] // what found no room is lost
	}
	return nil
}

func (e *packetEmitter) close() error { return unix.Close(e.fd) }

// xdpEmitter sends out of an AF_XDP socket.
type xdpEmitter struct {
	umem  *xsk.UMEM
	sock  *xsk.Socket
	addrs [batchSize]uint64
	descs [batchSize]xsk.Desc
	size  int
}

func newXDPEmitter(ifindex, longest int) (*xdpEmitter, error) {
	cfg := xsk.DefaultUMEM()
	if longest > cfg.FrameSize {
		cfg.FrameSize = 4096
	}
	if longest > cfg.FrameSize {
		return nil, fmt.Errorf("frames of %d bytes: an AF_XDP socket sends %d at most", longest, cfg.FrameSize)
	}
	umem, err := xsk.NewUMEM(cfg)
	if err != nil {
		return nil, err
	}
	c := xsk.Default(ifindex, 0)
	c.RxSize = 0
	sock, err := umem.Open(c)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open AF_XDP socket: %w", err), umem.Close())
	}
	e := &xdpEmitter{umem: umem, sock: sock, size: cfg.FrameSize}
	return e, e.fill(0)
}

// fill takes frames for those that the batch lacks after the first n.
func (e *xdpEmitter) fill(n int) error {
	for n += e.umem.Alloc(e.addrs[n:]); n < batchSize; n += e.umem.Alloc(e.addrs[n:]) {
		if err := e.push(); err != nil {
			return err
		}
	}
	return nil
}

// push has the kernel send what is on the ring, and takes sent frames back.
func (e *xdpEmitter) push() error {
	e.sock.Reclaim()
	if st := e.sock.Kick(); st == xsk.Dead || st == xsk.Down {
		return fmt.Errorf("send frames: link is %v", st)
	}
	e.sock.Reclaim()
	return nil
}

func (e *xdpEmitter) buffer(i int) []byte { return e.umem.Bytes(e.addrs[i], uint32(e.size)) }

func (e *xdpEmitter) emit(lengths []int) error {
	for i, n := range lengths {
		e.descs[i] = xsk.Desc{Addr: e.addrs[i], Len: uint32(n)}
	}
	for batch := e.descs[:len(lengths)]; len(batch) > 0; {
		batch = batch[e.sock.Send(batch):]
		if err := e.push(); err != nil {
			return err
		}
	}
	return e.fill(copy(e.addrs[:], e.addrs[len(lengths):]))
}

func (e *xdpEmitter) close() error { return errors.Join(e.sock.Close(), e.umem.Close()) }
