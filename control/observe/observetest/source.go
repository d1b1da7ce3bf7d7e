// Package observetest gives tests a worker's event rings without a worker.
package observetest

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// Source is an observe.Source and its Names. Pods are those of Pods, by
// endpoint; causes those of Causes.
type Source struct {
	Events, Denies *event.Ring
	Pods           map[endpoint.ID]*observe.End
	Causes         []rule.Cause

	wake     chan struct{}
	mu       sync.Mutex
	interest event.Interest
	packets  *event.PacketRing
	labels   []string
}

// New returns a source of two rings for size records each, with three pods:
// 1 is a/client, 2 is b/web, 3 is b/db.
func New(size int) (*Source, error) {
	s := &Source{wake: make(chan struct{}, 1), Causes: []rule.Cause{{},
		{Refs: []rule.PolicyRef{{Kind: "NetworkPolicy", Namespace: "a", Name: "out", Rule: 2, Direction: rule.Egress}}},
		{Refs: []rule.PolicyRef{{Kind: "NetworkPolicy", Namespace: "b", Name: "in", Rule: 0, Direction: rule.Ingress}}},
		{Refs: []rule.PolicyRef{
			{Kind: "NetworkPolicy", Namespace: "b", Name: "deny", Rule: rule.DefaultRule, Direction: rule.Ingress},
			{Kind: "NetworkPolicy", Namespace: "b", Name: "in", Rule: rule.DefaultRule, Direction: rule.Ingress}}},
		{Text: "own node"},
	}, Pods: map[endpoint.ID]*observe.End{
		1: {Endpoint: 1, Identity: 301, Namespace: "a", Pod: "client", Labels: []string{"k8s:app=client"}, Workload: "client", WorkloadKind: "Deployment"},
		2: {Endpoint: 2, Identity: 302, Namespace: "b", Pod: "web", Labels: []string{"k8s:app=web"}},
		3: {Endpoint: 3, Identity: 303, Namespace: "b", Pod: "db", Labels: []string{"k8s:app=db"}},
	}}
	wake := func() {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	var err error
	if s.Events, err = event.NewRing(size, wake); err != nil {
		return nil, err
	}
	s.Denies, err = event.NewRing(size, wake)
	return s, err
}

// Addr returns the address of a pod, and of one outside for endpoint.None.
func Addr(id endpoint.ID) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(id)}) }

// TCP returns the record of a first packet from a pod, n apart in time and source
// port from others.
func TCP(n int, src, dst endpoint.ID, port uint16) event.Record {
	r := event.Record{TimeNs: time.Unix(1_800_000_000, 0).UnixNano() + int64(n)*1000, Kind: event.NewFlow, Allowed: true,
		TCPFlags: packet.TCPSyn, Src: src, Dst: dst, Reason: stat.OK, Generation: 1}
	if src == endpoint.None {
		r.Hook = event.ToPod
	}
	r.Key, r.Side = packet.MakeKey(packet.AddrFrom(Addr(src)), packet.AddrFrom(Addr(dst)), uint16(10000+n%50000), port, packet.ProtoTCP)
	return r
}

// Deny makes a record one of a denial.
func Deny(r event.Record, egress, ingress rule.CauseID) event.Record {
	r.Kind, r.Allowed, r.Reason, r.Egress, r.Ingress = event.Denied, false, stat.Policy, egress, ingress
	return r
}

// Put writes records as a worker does, each burst of 64 at once.
func (s *Source) Put(recs ...event.Record) {
	for i := range recs {
		if !s.Interest().Wants(&recs[i]) {
			continue
		}
		if recs[i].Allowed {
			s.Events.Put(&recs[i])
		} else {
			s.Denies.Put(&recs[i])
		}
	}
	s.Events.Flush()
	s.Denies.Flush()
}

// ReadEvents implements observe.Source.
func (s *Source) ReadEvents(ctx context.Context, dst []event.Record) int {
	for ctx.Err() == nil {
		n := s.Denies.Read(dst)
		if n += s.Events.Read(dst[n:]); n > 0 {
			return n
		}
		if denies, events := s.Denies.Arm(), s.Events.Arm(); !denies || !events {
			continue
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
	}
	return 0
}

// LostEvents implements observe.Source.
func (s *Source) LostEvents() uint64 { return s.Events.Lost() + s.Denies.Lost() }

// SetInterest implements observe.Source.
func (s *Source) SetInterest(i event.Interest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interest = i
}

// Interest returns what is wanted now.
func (s *Source) Interest() event.Interest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.interest
}

// StartCapture implements observe.Source.
func (s *Source) StartCapture(snapLen int, want event.Interest) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packets, err = event.NewPacketRing(64, snapLen, want)
	return err
}

// StopCapture implements observe.Source.
func (s *Source) StopCapture() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packets = nil
}

// Capture puts a packet into the capture, if there is one.
func (s *Source) Capture(rec event.Record, data []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.packets == nil || !s.packets.Interest().Wants(&rec) {
		return false
	}
	s.packets.Put(&rec, len(data), data)
	return true
}

// ReadPackets implements observe.Source.
func (s *Source) ReadPackets(visit func(rec *event.Record, length int, data []byte)) (lost uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.packets == nil {
		return 0
	}
	s.packets.Read(visit)
	return s.packets.Lost()
}

// world is behind all addresses that no pod has.
var world = &observe.End{Identity: observe.IdentityWorld, Labels: []string{"reserved:world"}}

// End implements observe.Names.
func (s *Source) End(id endpoint.ID, _ packet.Addr) *observe.End {
	if e := s.Pods[id]; e != nil {
		return e
	}
	return world
}

// Cause implements observe.Names.
func (s *Source) Cause(id rule.CauseID) rule.Cause { return s.Causes[id] }

// Nodes implements hubble.Peers.
func (s *Source) Nodes() map[string]string { return map[string]string{"other": "192.0.2.2"} }

// NodeLabels implements hubble.Peers.
func (s *Source) NodeLabels() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.labels
}

// SetNodeLabels says what the node's labels are from now on.
func (s *Source) SetNodeLabels(labels ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.labels = labels
}
