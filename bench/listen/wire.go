package listen

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// What this client lets the server send: frames as large as it writes at once, and
// all that the socket takes, whose buffer alone holds the server back.
const (
	maxFrame   = 1 << 20
	maxWindow  = 1<<31 - 1
	readBuffer = 256 << 10
)

// Wire follows the flows of the node that serves at a Unix socket by HTTP/2's frames
// and the fields of the messages. No later event is missed once it returns.
func Wire(ctx context.Context, socket string) (*Client, error) {
	w, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(ctx, func() { w.conn.Close() })
	c := &Client{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for err == nil {
			err = w.next(c)
		}
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
	}()
	return c, nil
}

// Stalled asks for the flows of the node as Wire does, and then reads nothing.
func Stalled(ctx context.Context, socket string) (io.Closer, error) {
	w, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	return w.conn, nil
}

// wire is a connection with one request.
type wire struct {
	conn     net.Conn
	frames   *http2.Framer
	messages messages
	used     int // of the windows
}

// streamID is that of the request: the first of a client.
const streamID = 1

// dial asks, and returns once the server answers.
func dial(ctx context.Context, socket string) (*wire, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("follow flows: %w", err)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	w := &wire{conn: conn, frames: http2.NewFramer(conn, bufio.NewReaderSize(conn, readBuffer))}
	w.frames.SetMaxReadFrameSize(maxFrame)
	w.frames.SetReuseFrames()
	w.frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err = w.ask(); err == nil {
		err = w.opened()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("follow flows: %w", err), conn.Close())
	}
	return w, nil
}

// ask sends the request.
func (w *wire) ask() error {
	body, err := proto.Marshal(&observerpb.GetFlowsRequest{Follow: true})
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "sluice"},
		{":path", observerpb.Observer_GetFlows_FullMethodName}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return fmt.Errorf("encode headers: %w", err)
		}
	}
	_, err = io.WriteString(w.conn, http2.ClientPreface)
	return errors.Join(err,
		w.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow},
			http2.Setting{ID: http2.SettingMaxFrameSize, Val: maxFrame}),
		w.frames.WriteWindowUpdate(0, maxWindow-1<<16),
		w.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: block.Bytes(), EndHeaders: true}),
		w.frames.WriteData(streamID, true, body))
}

// opened returns when the server answers.
func (w *wire) opened() error {
	for {
		f, err := w.frames.ReadFrame()
		if err != nil {
			return err
		}
		if h, ok := f.(*http2.MetaHeadersFrame); ok && !h.StreamEnded() {
			return nil
		}
		if err := w.control(f); err != nil {
			return err
		}
	}
}

// next reads a frame.
func (w *wire) next(c *Client) error {
	f, err := w.frames.ReadFrame()
	if err != nil {
		return err
	}
	data, ok := f.(*http2.DataFrame)
	if !ok {
		return w.control(f)
	}
	if w.used += len(data.Data()); w.used > maxWindow/2 {
		err = errors.Join(w.frames.WriteWindowUpdate(0, uint32(w.used)), w.frames.WriteWindowUpdate(streamID, uint32(w.used)))
		w.used = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(err, w.messages.take(data.Data(), c.tally.message))
}

// control takes frames that carry no messages.
func (w *wire) control(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return w.frames.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return w.frames.WritePing(true, f.Data)
		}
	case *http2.MetaHeadersFrame:
		return fmt.Errorf("the server has ended the stream: %v", f.Fields)
	case *http2.RSTStreamFrame:
		return fmt.Errorf("the server has reset the stream: %v", f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Errorf("the server is going away: %v", f.ErrCode)
	}
	return nil
}
