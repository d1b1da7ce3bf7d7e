package dataplane

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/xdpprog"
)

// Config is how the dataplane is built. Validate reports every fault at once.
type Config struct {
	PinPath   string // directory on a bpffs
	Workers   int    // queues, each with a goroutine, a steering port and a flow table
	CPUs      []int  // that the workers run on, one each, in turns; none: wherever the kernel has them run
	Offload   bool   // established flows stay in the kernel's flow cache
	FailOpen  bool   // no live worker: new flows go through unjudged
	Shortcut  bool   // pod to pod of this node around the host's stack
	PodLinks  int    // without Offload: pods a worker hears on their own links at a time, without TSO meanwhile
	Endpoints int    // most pods of this node
	Clsact    bool   // attach by clsact filters even where the kernel has tcx

	Frames    int  // of each worker's UMEM
	FrameSize int  // bytes, 2048 or 4096
	HugePages bool // try 2 MiB pages for the UMEM

	Uplinks []string // NICs that frames are taken from early, with Frames more a queue

	Flow       flow.Config // per worker
	FlowCache  int         // entries of the kernel's flow cache
	AdmitCache int         // pairs whose flows the kernel admits by itself
	DenyCache  int         // entries of the kernel's cache of denied flows
	Fragments  int         // datagrams whose fragments are followed, in all
	EventRing  int         // records, a power of two; one ring for denies, one for the rest
	MissRate   int         // new flows a second and hook of a pod; 0: unlimited
	MissBurst  int
	DenyReport time.Duration // a denied flow is judged and reported anew after this
	AnswerHold time.Duration // an answer of a resolver waits for its release so long at most

	HeartbeatTimeout time.Duration // a worker silent for longer is dead
}

// Default returns the configuration of a node with few cores.
func Default() Config {
	return Config{
		Workers: 1, Offload: true, Shortcut: true, PodLinks: 8, Endpoints: 1023,
		Frames: 4096, FrameSize: 2048, HugePages: true,
		Flow: defaultFlows(), FlowCache: 1 << 17, AdmitCache: 1 << 14, DenyCache: 1 << 14, Fragments: 1 << 13,
		EventRing: 1 << 13, MissRate: 100_000, MissBurst: 20_000,
		DenyReport: time.Second, AnswerHold: 100 * time.Millisecond, HeartbeatTimeout: 2 * time.Second,
	}
}

// What a Config can ask for: the programs' numbers have 32 bits, and nanoseconds
// are added to times.
const (
	maxEntries = 1 << 30
	maxTime    = 24 * time.Hour
)

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.PinPath != "", "pin path: missing")
	check(c.Workers >= 1 && c.Workers <= xdpprog.MaxWorkers, "workers %d: want 1 to %d", c.Workers, xdpprog.MaxWorkers)
	check(c.Endpoints >= 1 && c.Endpoints < 1<<16, "endpoints %d: want 1 to 65535", c.Endpoints)
	check(c.Frames >= 256 && c.Frames <= maxEntries && c.Frames&(c.Frames-1) == 0, "frames %d: want a power of two from 256 to %d", c.Frames, maxEntries)
	check(c.PodLinks >= 0 && c.PodLinks <= 1024, "pod links %d: want 0 to 1024", c.PodLinks)
	check(c.FrameSize == 2048 || c.FrameSize == 4096, "frame size %d: want 2048 or 4096", c.FrameSize)
	entries := func(n int, what string) {
		check(n >= 64 && n <= maxEntries, "%s %d: want 64 to %d", what, n, maxEntries)
	}
	entries(c.FlowCache, "flow cache")
	entries(c.AdmitCache, "admit cache")
	entries(c.DenyCache, "deny cache")
	entries(c.Fragments, "fragments")
	check(c.EventRing >= 64 && c.EventRing <= maxEntries && c.EventRing&(c.EventRing-1) == 0,
		"event ring %d: want a power of two from 64 to %d", c.EventRing, maxEntries)
	check(c.MissRate >= 0 && c.MissRate <= maxEntries && c.MissBurst >= 0 && c.MissBurst <= maxEntries,
		"miss rate %d, burst %d: want 0 to %d", c.MissRate, c.MissBurst, maxEntries)
	check(c.MissRate == 0 || c.MissBurst > 0, "miss burst %d: want 1 or more with a miss rate", c.MissBurst)
	check(c.DenyReport > 0 && c.DenyReport <= maxTime, "deny report %v: want more than 0, up to %v", c.DenyReport, maxTime)
	check(c.AnswerHold >= 0 && c.AnswerHold <= maxTime, "answer hold %v: want 0 to %v", c.AnswerHold, maxTime)
	check(c.HeartbeatTimeout >= 200*time.Millisecond && c.HeartbeatTimeout <= maxTime,
		"heartbeat timeout %v: want 200ms to %v", c.HeartbeatTimeout, maxTime)
	errs = append(errs, validUplinks(c.Uplinks), c.Flow.Validate())
	return errors.Join(errs...)
}

func (c Config) programs() xdpprog.Config {
	return xdpprog.Config{
		PinPath: c.PinPath, Workers: c.Workers, Offload: c.Offload, FailOpen: c.FailOpen,
		Shortcut: c.Shortcut, Flows: c.FlowCache, Denied: c.DenyCache, Admits: c.AdmitCache, Fragments: c.Fragments,
		Endpoints: c.Endpoints, HeartbeatTimeout: c.HeartbeatTimeout, DenyTTL: c.DenyReport,
		MissRate: uint32(c.MissRate), MissBurst: uint32(c.MissBurst), Uplinks: len(c.Uplinks) > 0,
	}
}

// defaultFlows gives a worker's table the size of the kernel's cache. Memory is
// used as flows come: 128 bytes each.
func defaultFlows() flow.Config {
	c := flow.Default()
	c.Capacity = 1 << 17
	return c
}
