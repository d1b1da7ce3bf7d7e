package flow

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// Config sizes a Table and says how long idle flows live.
type Config struct {
	Capacity int // flows of one worker
	Timeouts Timeouts
}

// Timeouts are idle times in nanoseconds.
type Timeouts struct {
	TCPSynNs         int64 // handshake not finished
	TCPLooseNs       int64 // picked up in mid-stream, one side heard so far
	TCPEstablishedNs int64
	TCPFinWaitNs     int64 // one side closed: the other may send on (RFC 5382: 4 minutes)
	TCPClosedNs      int64 // both sides closed, or a reset
	UDPNs            int64 // no reply yet, or no more than one exchange
	UDPStreamNs      int64 // both sides were heard for at least 2 s
	ICMPNs           int64
	OtherNs          int64
}

// Default returns what suits a node: 64k flows a worker and idle times close
// to those of Linux's connection tracking.
func Default() Config {
	return Config{
		Capacity: 1 << 16,
		Timeouts: Timeouts{
			TCPSynNs:         int64(30 * time.Second),
			TCPLooseNs:       int64(5 * time.Minute),
			TCPEstablishedNs: int64(6 * time.Hour),
			TCPFinWaitNs:     int64(4 * time.Minute),
			TCPClosedNs:      int64(10 * time.Second),
			UDPNs:            int64(30 * time.Second),
			UDPStreamNs:      int64(180 * time.Second),
			ICMPNs:           int64(30 * time.Second),
			OtherNs:          int64(600 * time.Second),
		},
	}
}

// maxCapacity keeps index positions (8 a bucket, 5 of them used) in 32 bits.
const maxCapacity = 1 << 30

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.Capacity < 1 || c.Capacity > maxCapacity {
		errs = append(errs, fmt.Errorf("flow capacity %d: want 1 to %d", c.Capacity, maxCapacity))
	}
	t := &c.Timeouts
	for _, f := range []struct {
		name string
		ns   int64
	}{
		{"tcp syn", t.TCPSynNs}, {"tcp loose", t.TCPLooseNs},
		{"tcp established", t.TCPEstablishedNs}, {"tcp fin-wait", t.TCPFinWaitNs},
		{"tcp closed", t.TCPClosedNs}, {"udp", t.UDPNs}, {"udp stream", t.UDPStreamNs},
		{"icmp", t.ICMPNs}, {"other", t.OtherNs},
	} {
		if f.ns <= 0 {
			errs = append(errs, fmt.Errorf("flow timeout %s %v: want more than 0", f.name, time.Duration(f.ns)))
		}
	}
	return errors.Join(errs...)
}

// Kinds of protocols that time out differently.
const (
	kindTCP = iota
	kindUDP
	kindICMP
	kindOther
	numKinds
)

// kindOf is indexed by protocol.
var kindOf = func() (k [256]uint8) {
	for i := range k {
		k[i] = kindOther
	}
	k[packet.ProtoTCP], k[packet.ProtoUDP] = kindTCP, kindUDP
	k[packet.ProtoICMP], k[packet.ProtoICMPv6] = kindICMP, kindICMP
	return k
}()

// idle is the timeout of each kind and state, in nanoseconds.
type idle [numKinds][numStates]int64

func (t *Timeouts) table() (d idle) {
	for s := range numStates {
		d[kindTCP][s] = t.TCPSynNs
		d[kindUDP][s] = t.UDPNs
		d[kindICMP][s] = t.ICMPNs
		d[kindOther][s] = t.OtherNs
	}
	d[kindTCP][Loose] = t.TCPLooseNs
	d[kindTCP][Established] = t.TCPEstablishedNs
	d[kindTCP][FinWait] = t.TCPFinWaitNs
	d[kindTCP][Closed] = t.TCPClosedNs
	d[kindUDP][Established] = t.UDPStreamNs
	return d
}
