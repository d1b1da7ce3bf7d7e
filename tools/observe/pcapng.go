package observe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// Capture writes packets with comments as pcapng. gopacket's writer makes the
// blocks; as it has no comments of packets, they are added to its Enhanced
// Packet Blocks (draft-ietf-opsawg-pcapng, 4.3), each of which passes here whole.
// It belongs to one goroutine.
type Capture struct {
	out   io.Writer
	block bytes.Buffer // what ng wrote last
	ng    *pcapgo.NgWriter
	size  int64
}

// Constants of the format.
const (
	enhancedPacket   = 6
	optEnd           = 0
	optComment       = 1
	blockOverhead    = 12 // type, length, and length again
	maxComment       = 1 << 12
	enhancedOverhead = 20 + blockOverhead // without data and options
)

// NewCapture begins a file.
func NewCapture(out io.Writer, snapLen int, comment string) (*Capture, error) {
	c := &Capture{out: out}
	intf := pcapgo.NgInterface{Name: "sluice", Description: "packets judged by Sluice, from the IP header on", LinkType: layers.LinkTypeRaw,
		SnapLength: uint32(snapLen), TimestampResolution: 9}
	options := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "sluice", Comment: comment, OS: "linux"}}
	var err error
	if c.ng, err = pcapgo.NewNgWriterInterface(&c.block, intf, options); err != nil {
		return nil, fmt.Errorf("begin capture: %w", err)
	}
	if err := c.ng.Flush(); err != nil {
		return nil, fmt.Errorf("begin capture: %w", err)
	}
	return c, c.put(c.block.Bytes())
}

// Size is how much was written so far, bytes.
func (c *Capture) Size() int64 { return c.size }

// Need is how much a packet takes, bytes.
func (c *Capture) Need(data []byte, comment string) int64 {
	return int64(enhancedOverhead + padded(len(data)) + 4 + padded(min(len(comment), maxComment)) + 4)
}

// Packet adds a packet, of which data is the beginning.
func (c *Capture) Packet(at time.Time, length int, data []byte, comment string) error {
	c.block.Reset()
	err := c.ng.WritePacket(gopacket.CaptureInfo{Timestamp: at, Length: length, CaptureLength: len(data)}, data)
	if err == nil {
		err = c.ng.Flush()
	}
	if err != nil {
		return fmt.Errorf("write packet: %w", err)
	}
	return c.put(withComment(c.block.Bytes(), comment))
}

// Close ends the file by saying how many packets were left out. It does not
// close what it writes to.
func (c *Capture) Close(written, dropped uint64) error {
	c.block.Reset()
	err := c.ng.WriteInterfaceStats(0, pcapgo.NgInterfaceStatistics{LastUpdate: time.Now(), PacketsReceived: written + dropped, PacketsDropped: dropped})
	if err == nil {
		err = c.ng.Flush()
	}
	if err != nil {
		return fmt.Errorf("end capture: %w", err)
	}
	return c.put(c.block.Bytes())
}

func (c *Capture) put(block []byte) error {
	n, err := c.out.Write(block)
	if c.size += int64(n); err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	return nil
}

// withComment adds a comment to an Enhanced Packet Block that has no options.
func withComment(block []byte, comment string) []byte {
	if len(block) < enhancedOverhead || binary.LittleEndian.Uint32(block) != enhancedPacket {
		return block
	}
	if len(comment) > maxComment {
		comment = comment[:maxComment]
	}
	out := append([]byte(nil), block[:len(block)-4]...) // without the length at the end
	out = binary.LittleEndian.AppendUint16(out, optComment)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(comment)))
	out = append(out, comment...)
	out = append(out, make([]byte, padded(len(comment))-len(comment))...)
	out = append(out, optEnd, 0, 0, 0)
	length := uint32(len(out) + 4)
	binary.LittleEndian.PutUint32(out[4:], length)
	return binary.LittleEndian.AppendUint32(out, length)
}

// padded is a length up to the next multiple of four.
func padded(n int) int { return (n + 3) &^ 3 }
