package xdpprog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// LastBeat returns a worker's last heartbeat, CLOCK_MONOTONIC in nanoseconds;
// 0 if it never had one.
func (o *Objects) LastBeat(worker int) int64 { return int64(atomic.LoadUint64(&o.beats[worker])) }

// MapUsage is the size of a map and how much of it is in use.
type MapUsage struct {
	Name    string
	Type    string
	Max     uint32 // entries
	Entries int
	Evicts  bool // full, it forgets what was used least lately instead of refusing
}

// fragKey has the size of struct frag_key.
type fragKey [48]byte

// Maps counts the entries of those maps that can run full. It reads them
// whole, some thousand entries a system call.
func (o *Objects) Maps() ([]MapUsage, error) {
	counts := []struct {
		m     *ebpf.Map
		name  string
		count func(*ebpf.Map) (int, error)
	}{
		{o.maps.Flows, "flows", countEntries[FlowKey, FlowValue]},
		{o.maps.Denied, "denied", countEntries[FlowKey, DenyValue]},
		{o.maps.Admits, "admits", countEntries[AdmitKey, AdmitValue]},
		{o.maps.Frags, "frags", countEntries[fragKey, uint32]},
		{o.maps.Links, "links", countEntries[uint32, uint32]},
		{o.maps.OwnAddrs, "own_addrs", countEntries[OwnAddr, uint8]},
	}
	var out []MapUsage
	var errs []error
	for _, c := range counts {
		n, err := c.count(c.m)
		if err != nil {
			errs = append(errs, fmt.Errorf("count entries of map %s: %w", c.name, err))
			continue
		}
		out = append(out, MapUsage{Name: c.name, Type: c.m.Type().String(), Max: c.m.MaxEntries(), Entries: n,
			Evicts: c.m.Type() == ebpf.LRUHash})
	}
	return out, errors.Join(errs...)
}

func countEntries[K, V any](m *ebpf.Map) (int, error) {
	const chunk = 4096
	keys, values := make([]K, chunk), make([]V, chunk)
	var cursor ebpf.MapBatchCursor
	for total := 0; ; {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		total += n
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// ProgramInfo is a loaded program as the kernel has it.
type ProgramInfo struct {
	Name     string
	ID       uint32
	Type     string
	Tag      string // of its instructions
	Point    string // where it is attached
	Attached int    // pinned links to it; clsact filters are none
}

// Programs describes the loaded programs and where they are attached by link.
func (o *Objects) Programs() ([]ProgramInfo, error) {
	attached := make(map[string]int)
	pins, err := os.ReadDir(filepath.Join(o.cfg.PinPath, "links"))
	if err != nil {
		return nil, fmt.Errorf("list attached programs: %w", err)
	}
	for _, pin := range pins {
		if i := strings.LastIndexByte(pin.Name(), '-'); i > 0 {
			attached[pin.Name()[:i]]++
		}
	}
	var out []ProgramInfo
	for p := range Point(len(pointNames)) {
		prog := o.program(p)
		info, err := prog.Info()
		if err != nil {
			return nil, fmt.Errorf("describe program of %s: %w", p, err)
		}
		id, _ := info.ID()
		out = append(out, ProgramInfo{Name: info.Name, ID: uint32(id), Type: prog.Type().String(), Tag: info.Tag,
			Point: p.String(), Attached: attached[p.String()]})
	}
	return out, nil
}
