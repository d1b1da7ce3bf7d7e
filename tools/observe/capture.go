package observe

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sluice-net/sluice/control/api"
)

// Limits bound a capture.
type Limits struct {
	SnapLen int   // bytes of each packet
	MaxSize int64 // of the file, bytes
	MaxRate int   // packets a second
}

// DefaultLimits are those of who says nothing else.
func DefaultLimits() Limits { return Limits{SnapLen: 262, MaxSize: 100 << 20, MaxRate: 1000} }

// minSize is room for the file's head, its end and a packet.
const minSize = 4096

// Validate reports every fault at once.
func (l Limits) Validate() error {
	var errs []error
	if l.SnapLen < 1 || l.SnapLen > 2048 {
		errs = append(errs, fmt.Errorf("--snaplen=%d: want 1 to 2048", l.SnapLen))
	}
	if l.MaxSize < minSize {
		errs = append(errs, fmt.Errorf("--max-size=%d: want %d or more", l.MaxSize, minSize))
	}
	if l.MaxRate < 1 {
		errs = append(errs, fmt.Errorf("--max-rate=%d: want 1 or more", l.MaxRate))
	}
	return errors.Join(errs...)
}

// ErrFull says that a capture has its size.
var ErrFull = errors.New("the capture has its size")

// Recorder writes what an agent copies, within limits.
type Recorder struct {
	capture         *Capture
	limits          Limits
	Denied, Allowed uint64 // written
	Lost, Omitted   uint64 // left out: no room on the way, over the rate
}

// NewRecorder returns a recorder that writes to c.
func NewRecorder(c *Capture, limits Limits) *Recorder { return &Recorder{capture: c, limits: limits} }

// room is what the end of the file takes, bytes.
const room = 128

// Add writes a packet; ErrFull says that it has no place any more.
func (r *Recorder) Add(p *api.Packet) error {
	r.Lost, r.Omitted = max(r.Lost, p.Lost), max(r.Omitted, p.Omitted)
	if p.Flow == nil {
		return nil
	}
	e := &Event{Flow: *p.Flow}
	comment := Comment(e)
	if r.capture.Size()+r.capture.Need(p.Data, comment)+room > r.limits.MaxSize {
		return ErrFull
	}
	if err := r.capture.Packet(e.Time, max(p.Length, len(p.Data)), p.Data, comment); err != nil {
		return err
	}
	if e.Word() == "DROPPED" {
		r.Denied++
	} else {
		r.Allowed++
	}
	return nil
}

// Close ends the file.
func (r *Recorder) Close() error {
	return r.capture.Close(r.Denied+r.Allowed, r.Lost+r.Omitted)
}

// Summary says what was written, and what was left out.
func (r *Recorder) Summary() string {
	s := fmt.Sprintf("%d packets written (%d denied, %d allowed), %s", r.Denied+r.Allowed, r.Denied, r.Allowed, Bytes(uint64(r.capture.Size())))
	var out []string
	if r.Omitted > 0 {
		out = append(out, fmt.Sprintf("%d over --max-rate", r.Omitted))
	}
	if r.Lost > 0 {
		out = append(out, fmt.Sprintf("%d that came faster than they were taken", r.Lost))
	}
	if len(out) > 0 {
		s += "; left out: " + strings.Join(out, ", ")
	}
	return s
}

// Comment is what a packet's comment says of its verdict.
func Comment(e *Event) string {
	text := e.Word()
	if cause := e.Cause(true); cause != "" {
		text += ": " + cause
	}
	ports := e.ICMP == "" // else they are an echo's number
	src, dst := EndText(&e.Src, ports), EndText(&e.Dst, ports)
	reply := ""
	if e.Reply {
		reply = ", a reply"
	}
	return fmt.Sprintf("%s; %s -> %s%s, node %s", text, src, dst, reply, e.Node)
}
