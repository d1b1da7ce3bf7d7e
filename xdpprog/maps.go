package xdpprog

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// Beat stores a worker's heartbeat, CLOCK_MONOTONIC_COARSE in nanoseconds.
func (o *Objects) Beat(worker int, nowNs int64) {
	atomic.StoreUint64(&o.beats[worker], uint64(nowNs))
}

// SetPort tells divert the steering port of a worker; 0: none.
func (o *Objects) SetPort(worker, ifindex int) error {
	if err := o.maps.Workers.Put(uint32(worker), uint32(ifindex)); err != nil {
		return fmt.Errorf("set port of worker %d: %w", worker, err)
	}
	return nil
}

// SetSocket makes steer deliver a worker's frames into the AF_XDP socket fd,
// until the socket is closed.
func (o *Objects) SetSocket(worker, fd int) error {
	if err := o.maps.Xsks.Put(uint32(worker), uint32(fd)); err != nil {
		return fmt.Errorf("set socket of worker %d: %w", worker, err)
	}
	return nil
}

// SetPodSocket has plain packets that the pod of a slot sends go straight into
// the AF_XDP socket fd on its link, where PodXDP is attached, until the socket
// is closed. It belongs to the worker slot%Workers.
func (o *Objects) SetPodSocket(slot uint32, fd int) error {
	if err := o.maps.PodXsks.Put(slot, uint32(fd)); err != nil {
		return fmt.Errorf("set socket of endpoint %d: %w", slot, err)
	}
	return nil
}

// PutEndpoint writes the endpoint of a slot.
func (o *Objects) PutEndpoint(slot uint32, e Endpoint) error {
	if err := o.maps.Endpoints.Put(slot, &e); err != nil {
		return fmt.Errorf("write endpoint %d: %w", slot, err)
	}
	return nil
}

// Endpoint reads the endpoint of a slot.
func (o *Objects) Endpoint(slot uint32) (Endpoint, error) {
	var e Endpoint
	if err := o.maps.Endpoints.Lookup(slot, &e); err != nil {
		return e, fmt.Errorf("read endpoint %d: %w", slot, err)
	}
	return e, nil
}

// Slots is the number of slots of the endpoint map, the unused slot 0 included.
func (o *Objects) Slots() uint32 { return o.maps.Endpoints.MaxEntries() }

// BindLink says which slot a host-side link carries.
func (o *Objects) BindLink(ifindex int, slot uint32) error {
	if err := o.maps.Links.Put(uint32(ifindex), slot); err != nil {
		return fmt.Errorf("bind link %d: %w", ifindex, err)
	}
	return o.forgetHints()
}

// UnbindLink forgets a link; divert then drops all that it carries.
func (o *Objects) UnbindLink(ifindex int) error {
	if err := o.maps.Links.Delete(uint32(ifindex)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("unbind link %d: %w", ifindex, err)
	}
	return o.forgetHints()
}

// forgetHints makes the programs look all links up again. A packet that is on its
// way meanwhile may still leave a hint at what was; it is taken for as long as the
// endpoint says that the link is its own.
func (o *Objects) forgetHints() error {
	if err := o.vars.Hints.Set(make([]byte, o.vars.Hints.Size())); err != nil {
		return fmt.Errorf("forget where links lead: %w", err)
	}
	return nil
}

// BoundLinks returns all links and their slots.
func (o *Objects) BoundLinks() (map[int]uint32, error) {
	links := make(map[int]uint32)
	var ifindex, slot uint32
	it := o.maps.Links.Iterate()
	for it.Next(&ifindex, &slot) {
		links[int(ifindex)] = slot
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	return links, nil
}

// UpdateFlows writes flow cache entries in one system call, without
// allocation, and returns how many were written. K has FlowKey's layout; both
// slices are on the heap.
func UpdateFlows[K any](o *Objects, keys []K, values []FlowValue) (int, error) {
	return updateBatch(o.maps.Flows.FD(), keys, values)
}

// DeleteFlows removes flow cache entries. The kernel stops at an absent one:
// the count tells where, and the caller goes on behind it.
func DeleteFlows[K any](o *Objects, keys []K) (int, error) {
	return deleteBatch(o.maps.Flows.FD(), keys)
}

// LookupFlow reads one flow cache entry without allocation; false: absent.
func LookupFlow[K any](o *Objects, key *K, value *FlowValue) bool {
	return lookup(o.maps.Flows.FD(), key, value)
}

// TakeFlow reads one flow cache entry and removes it, without allocation; false:
// absent.
func TakeFlow[K any](o *Objects, key *K, value *FlowValue) bool {
	return take(o.maps.Flows.FD(), key, value)
}

// UpdateDenied writes entries of denied flows, as UpdateFlows.
func UpdateDenied[K any](o *Objects, keys []K, values []DenyValue) (int, error) {
	return updateBatch(o.maps.Denied.FD(), keys, values)
}

// DeleteDenied removes one entry of a denied flow, if it is there, without allocation.
func DeleteDenied[K any](o *Objects, key *K) { remove(o.maps.Denied.FD(), key) }

// LookupDenied reads one entry of a denied flow; false: absent.
func LookupDenied[K any](o *Objects, key *K, value *DenyValue) bool {
	return lookup(o.maps.Denied.FD(), key, value)
}

// EachFlow calls visit with every entry of the flow cache.
func (o *Objects) EachFlow(visit func(*FlowKey, *FlowValue)) error {
	return each(o.maps.Flows, visit)
}

// EachDenied calls visit with every entry of the cache of denied flows.
func (o *Objects) EachDenied(visit func(*FlowKey, *DenyValue)) error {
	return each(o.maps.Denied, visit)
}

func each[V any](m *ebpf.Map, visit func(*FlowKey, *V)) error {
	const chunk = 4096
	keys, values := make([]FlowKey, chunk), make([]V, chunk)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			visit(&keys[i], &values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read cache %s: %w", m, err)
		}
	}
}

// Drops returns the drop counters of the programs, by reason.
func (o *Objects) Drops() ([NumDropReasons]uint64, error) {
	var sums [NumDropReasons]uint64
	return sums, sumCPUs(o.maps.Drops, sums[:])
}

// Counters returns what the programs did with packets that they did not drop.
func (o *Objects) Counters() ([NumCounters]uint64, error) {
	var sums [NumCounters]uint64
	return sums, sumCPUs(o.maps.Counters, sums[:])
}

// Traffic returns what the caches judged at pods' links without a worker, by
// Hook, and for what was denied TrafficDenied further.
func (o *Objects) Traffic() ([NumTraffic]Traffic, error) {
	var sums [NumTraffic]Traffic
	for i := range sums {
		var perCPU []Traffic
		if err := o.maps.Traffic.Lookup(uint32(i), &perCPU); err != nil {
			return sums, fmt.Errorf("read traffic counter %d: %w", i, err)
		}
		for _, t := range perCPU {
			sums[i].Packets += t.Packets
			sums[i].Bytes += t.Bytes
		}
	}
	return sums, nil
}

func sumCPUs(m *ebpf.Map, sums []uint64) error {
	for i := range sums {
		var perCPU []uint64
		if err := m.Lookup(uint32(i), &perCPU); err != nil {
			return fmt.Errorf("read counter %d: %w", i, err)
		}
		for _, n := range perCPU {
			sums[i] += n
		}
	}
	return nil
}

// UpdateAdmits writes pairs whose flows divert may admit, as UpdateFlows.
func UpdateAdmits(o *Objects, keys []AdmitKey, values []AdmitValue) (int, error) {
	return updateBatch(o.maps.Admits.FD(), keys, values)
}

// Notes reads what divert tells the agent.
type Notes struct{ reader *ringbuf.Reader }

// Notes opens the ring buffer. One reader at a time.
func (o *Objects) Notes() (*Notes, error) {
	r, err := ringbuf.NewReader(o.maps.Notes)
	if err != nil {
		return nil, fmt.Errorf("open ring buffer of notes: %w", err)
	}
	return &Notes{reader: r}, nil
}

// Read moves notes into dst and returns how many. If there is none it waits,
// but not longer than patience, because divert wakes its reader only before
// the ring runs full.
func (n *Notes) Read(dst []Note, patience time.Duration) (int, error) {
	deadline := time.Now()
	if n.reader.AvailableBytes() == 0 {
		deadline = deadline.Add(patience)
	}
	n.reader.SetDeadline(deadline)
	var rec ringbuf.Record
	got := 0
	for got < len(dst) {
		err := n.reader.ReadInto(&rec)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return got, fmt.Errorf("read notes: %w", err)
		}
		var ok bool
		if dst[got], ok = noteFrom(rec.RawSample); ok {
			got++
		}
		if n.reader.AvailableBytes() == 0 {
			break
		}
	}
	return got, nil
}

// Close gives the ring buffer up, when no Read is under way.
func (n *Notes) Close() error { return n.reader.Close() }
