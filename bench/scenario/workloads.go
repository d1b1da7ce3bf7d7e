package scenario

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/bench/traffic"
)

// warmup precedes a measurement of so long: caches, congestion windows, clocks.
func warmup(d time.Duration) time.Duration { return min(d, 300*time.Millisecond) }

const anyCPU = traffic.AnyCPU

// placement is where the threads of client and server run.
type placement struct{ client, server int }

type runFunc = func(context.Context, *Stage, time.Duration) ([]Metric, error)

func stream(at placement) runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
		before, err := txStats(s.A)
		if err != nil {
			return nil, err
		}
		m, err := startMeter()
		if err != nil {
			return nil, err
		}
		r, err := traffic.Stream{
			Client: s.end(s.A, at.client), Server: s.end(s.B, at.server), To: s.service(), Warmup: warmup(d), Duration: d,
		}.Run(ctx)
		if err != nil {
			return nil, err
		}
		cpu, err := m.metrics()
		if err != nil {
			return nil, err
		}
		after, err := txStats(s.A)
		if err != nil {
			return nil, err
		}
		// A frame of more than the MTU can only be one that TSO left whole.
		frame := float64(after.bytes-before.bytes) / float64(max(after.packets-before.packets, 1))
		tso, err := tsoOn(s.A, s.B)
		return append([]Metric{
			{Name: "rate", Unit: "Gbit/s", Value: r.GbitPerSecond(), Better: Higher},
			{Name: "retransmits", Unit: "segments", Value: float64(r.Retransmits), Better: Neither},
			{Name: "spurious", Unit: "DSACKs", Value: float64(r.DSACKs), Better: Neither},
			{Name: "tso", Unit: "pods", Value: tso, Better: Neither},
			{Name: "frame", Unit: "B", Value: frame, Better: Neither},
		}, cpu...), err
	}
}

// tsoOn counts the pods whose link still has TCP segmentation offload on.
func tsoOn(pods ...*netlab.Pod) (n float64, err error) {
	for _, p := range pods {
		err = errors.Join(err, p.Namespace().Do(func() error {
			on, err := traffic.TSO.Get("eth0")
			if on {
				n++
			}
			return err
		}))
	}
	return n, err
}

type linkStats struct{ packets, bytes uint64 }

// txStats reads what a pod has sent from /proc/net/dev, which shows the
// namespace of the thread that opens it.
func txStats(p *netlab.Pod) (st linkStats, err error) {
	err = p.Namespace().Do(func() error {
		b, err := os.ReadFile(filepath.Join("/proc/thread-self", "net/dev"))
		if err != nil {
			return err
		}
		_, rest, ok := strings.Cut(string(b), "eth0:")
		f := strings.Fields(rest)
		if !ok || len(f) < 10 {
			return errors.New("no eth0 in /proc/net/dev")
		}
		var err1, err2 error
		st.bytes, err1 = strconv.ParseUint(f[8], 10, 64)
		st.packets, err2 = strconv.ParseUint(f[9], 10, 64)
		return errors.Join(err1, err2)
	})
	if err != nil {
		return st, fmt.Errorf("read counters of %s: %w", p.Key(), err)
	}
	return st, nil
}

func request(at placement) runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
		r, err := traffic.Request{
			Client: s.end(s.A, at.client), Server: s.end(s.B, at.server), To: s.service(), Warmup: warmup(d), Duration: d,
		}.Run(ctx)
		if err != nil {
			return nil, err
		}
		return append(latencies(r.Latency, 0.5, 0.9, 0.99),
			Metric{Name: "rate", Unit: "requests/s", Value: float64(r.Latency.Count()) / r.Elapsed.Seconds(), Better: Higher}), nil
	}
}

func latencies(h *traffic.Histogram, quantiles ...float64) []Metric {
	var ms []Metric
	for _, q := range quantiles {
		ms = append(ms, Metric{
			Name: fmt.Sprintf("p%g", 100*q), Unit: "µs", Value: float64(h.Quantile(q)) / 1e3, Better: Lower,
		})
	}
	return ms
}

func connect(parallel, cpu int) runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
		r, err := traffic.Connect{
			Client: s.end(s.A, cpu), Server: s.end(s.B, cpu), To: s.service(),
			Parallel: parallel, Warmup: warmup(d), Duration: d,
		}.Run(ctx)
		if err != nil {
			return nil, err
		}
		rate := Metric{Name: "rate", Unit: "connections/s", Value: r.PerSecond(), Better: Higher}
		return append([]Metric{rate}, latencies(r.Latency, 0.5, 0.99)...), nil
	}
}

// concurrent holds many connections open at a time.
func concurrent(n int) runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
		r, err := traffic.Concurrent{
			Client: s.end(s.A, 0), Server: s.end(s.B, 0), To: s.service(), Connections: n, Duration: d,
		}.Run(ctx)
		if err != nil {
			return nil, err
		}
		setUp := Metric{Name: "set-up", Unit: "connections/s", Value: r.PerSecond(), Better: Higher}
		return append([]Metric{setUp}, latencies(r.Latency, 0.5, 0.99)...), nil
	}
}

// flood sends small packets out of UDP sockets and counts what arrives.
func flood(sockets, ports int) runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
		return arrivals(ctx, s, d, unix.IPPROTO_UDP, sockets*ports, traffic.Flood{
			Client: s.end(s.A, 0), From: s.addr(s.A), To: s.addr(s.B), PayloadBytes: smallPayload,
			Sockets: sockets, Ports: ports,
		}.Start)
	}
}

// arrivals runs a flood and counts what arrives of a protocol.
func arrivals(ctx context.Context, s *Stage, d time.Duration, proto uint8, flows int, begin func(context.Context) (*traffic.Flooding, error)) (_ []Metric, err error) {
	sink, err := openSink(s, proto)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sink.Close()) }()
	f, err := begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Stop()) }()
	// Every flow must have been seen several times before it is measured.
	for f.Sent() < uint64(8*flows) {
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
	}
	if err := sleep(ctx, warmup(d)); err != nil {
		return nil, err
	}
	return countFlood(ctx, f, sink, d)
}

// counting is a sink.
type counting interface{ Received() (uint64, error) }

func countFlood(ctx context.Context, f *traffic.Flooding, sink counting, d time.Duration) ([]Metric, error) {
	m, err := startMeter()
	if err != nil {
		return nil, err
	}
	start, sent := time.Now(), f.Sent()
	had, err := sink.Received()
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, d); err != nil {
		return nil, err
	}
	has, err := sink.Received()
	if err != nil {
		return nil, err
	}
	span, sent := time.Since(start).Seconds(), f.Sent()-sent
	cpu, err := m.metrics()
	return append([]Metric{
		{Name: "received", Unit: "Mpps", Value: float64(has-had) / span / 1e6, Better: Higher},
		{Name: "sent", Unit: "Mpps", Value: float64(sent) / span / 1e6, Better: Neither},
	}, cpu...), err
}

func openSink(s *Stage, proto uint8) (sink *traffic.Sink, err error) {
	w, err := s.wire()
	if err != nil {
		return nil, err
	}
	err = w.inside(func() (err error) {
		sink, err = traffic.NewSink(w.inIndex, proto)
		return err
	})
	return sink, err
}

// raw floods with frames that never were packets of a stack.
func raw(ctx context.Context, s *Stage, d time.Duration) (_ []Metric, err error) {
	sink, ok := s.Running.(counting)
	if !ok {
		return nil, errors.New("this workload is for systems of XDP programs alone")
	}
	index, from, err := linkIndex(s.A.Namespace(), "eth0")
	if err != nil {
		return nil, err
	}
	_, to, err := linkIndex(s.Net.Host(), s.A.Link())
	if err != nil {
		return nil, err
	}
	f, err := traffic.RawFlood{Client: s.end(s.A, 0), Ifindex: index, Frame: rawFrame(to, from)}.Start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Stop()) }()
	if err := sleep(ctx, warmup(d)); err != nil {
		return nil, err
	}
	ms, err := countFlood(ctx, f, sink, d)
	// The generator counts by the half second: not what was sent meanwhile.
	return slices.DeleteFunc(ms, func(m Metric) bool { return m.Name == "sent" }), err
}

// rawFrame is the smallest Ethernet frame, of a protocol for experiments.
func rawFrame(to, from []byte) []byte {
	frame := make([]byte, 60)
	copy(frame, to)
	copy(frame[6:], from)
	binary.BigEndian.PutUint16(frame[12:], 0x88b5) // IEEE 802, local experimental
	return frame
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
