package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/dataplane/xsk"
	"github.com/sluice-net/sluice/xdpprog"
)

// idleMs bounds how long a worker sleeps: its heartbeat, its sweep and its
// inbox wait for no longer.
const (
	idleMs = 50
	busyMs = 5
)

// lingerNs is how long a worker looks for more before it sleeps: about what it
// would cost to be woken.
const lingerNs = int64(20 * time.Microsecond)

// notedLatelyNs is for how long after a note others are expected.
const notedLatelyNs = int64(time.Second)

// worker owns one queue: its AF_XDP socket, UMEM, flow table, counters and
// event rings. Only its goroutine touches them, but for what is noted.
type worker struct {
	id   int
	cfg  *Config
	objs *xdpprog.Objects
	snap *atomic.Pointer[snapshot] // shared, read only
	log  *slog.Logger
	// attach attaches a program to a link, by whatever the kernel has.
	attach func(xdpprog.Point, int) error

	umem     *xsk.UMEM
	sock     *xsk.Socket
	flows    *flow.Table
	frags    *flow.Fragments
	reports  reportTable
	pairs    pairs
	offload  offloader
	direct   []direct      // by slot
	waiting  []endpoint.ID // whose direct sockets have something out since the last kick
	inPods   int           // descriptors on their way by direct sockets
	listener listener
	intakes  intakes        // of queues of uplinks
	wanted   endpoint.ID    // to whose pod a direct socket is to be opened
	hearing  []endpoint.ID  // whose direct sockets receive
	maxHeard int            // of them
	poller   *xsk.Poller    // of all sockets; nil: they have changed
	stale    int            // cursor of closeStale
	counts   *stat.Counters // read by anyone
	events   *event.Ring    // read by the consumer of events
	denies   *event.Ring    // likewise
	hits     stat.Hits      // likewise
	rings    rings          // likewise
	service  serviceScratch
	// Shared by all workers, written by Plane: which events are wanted, and
	// where packets that were judged are copied to (nil: nowhere).
	interest *atomic.Uint32
	capture  atomic.Pointer[event.Capture]
	inbox    chan []xdpprog.Note // of divert's, in the order in which it told them
	read     chan []xdpprog.Note // empty lists, for more
	asked    chan *census
	census   *census      // being worked on
	live     atomic.Int64 // flows, for status
	heard    atomic.Int64 // pods, likewise
	mode     atomic.Value // string: copy or zero-copy
	alive    atomic.Bool
	cpu      atomic.Int64 // that it is tied to, or -1
	port     atomic.Value // string

	clock     clock
	nowNs     int64 // CLOCK_MONOTONIC, once a burst
	wallNs    int64 // CLOCK_REALTIME, likewise
	nextSweep int64
	nextProbe int64
	lastBurst int64
	purged    int   // snapshot.released whose flows have been removed
	purging   int   // likewise, of which they are being removed; 0: none
	purgeAt   int   // cursor of that
	awakeNs   int64 // since when time counts as busy; 0: not at all
	noted     int64 // when the last note was read
	refused   int64 // when a flow in the kernel's cache last found no room

	due [sweepBudget]flow.Ref // scratch of sweep
	b   burst
}

func newWorker(id int, cfg *Config, objs *xdpprog.Objects, snap *atomic.Pointer[snapshot], log *slog.Logger, wake func()) (*worker, error) {
	hasher := packet.NewHasher([3]uint64{rand.Uint64(), rand.Uint64(), rand.Uint64()})
	w := &worker{
		id: id, cfg: cfg, objs: objs, snap: snap, log: log.With("worker", id),
		counts: &stat.Counters{},
		inbox:  make(chan []xdpprog.Note, noteBatches+1),
		read:   make(chan []xdpprog.Note, noteBatches+1),
		asked:  make(chan *census),
		clock:  newClock(),
		direct: make([]direct, cfg.Endpoints+1), waiting: make([]endpoint.ID, 0, cfg.Endpoints+1), maxHeard: cfg.heard(),
	}
	for range noteBatches {
		w.read <- nil // it grows when there is something to note
	}
	frags := flow.DefaultFragments()
	frags.Capacity = max(cfg.Fragments/cfg.Workers, 64)
	var errs [4]error
	w.flows, errs[0] = flow.New(cfg.Flow, hasher)
	w.frags, errs[1] = flow.NewFragments(frags, hasher)
	w.events, errs[2] = event.NewRing(cfg.EventRing, wake)
	w.denies, errs[3] = event.NewRing(cfg.EventRing, wake)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("create worker %d: %w", id, err)
	}
	w.interest = &atomic.Uint32{}
	w.interest.Store(uint32(event.WantAll))
	w.reports.init()
	w.pairs.init()
	w.mode.Store("none")
	w.port.Store("")
	w.cpu.Store(-1)
	if err := w.listener.init(func() {}); err != nil {
		return nil, fmt.Errorf("create worker %d: %w", id, err)
	}
	return w, nil
}

// Port is a steering port: the kernel's end, where deliver sits, and the
// worker's end, where steer and the AF_XDP socket sit.
type Port struct {
	Name           string
	Kernel, Worker int // ifindexes
}

// Ports makes steering ports, or finds those that an earlier agent left.
type Ports interface {
	// Ensure returns the port of a worker, for IP packets up to mtu bytes.
	Ensure(worker, mtu int) (Port, error)
	// Whole reports whether the port of a worker is there as Ensure makes it.
	Whole(worker, mtu int) (bool, error)
	// NIC describes an uplink, or says why it can't be one.
	NIC(name string) (NIC, error)
}

// run serves the queue until ctx ends; it binds the socket anew if the port
// vanishes under it.
func (w *worker) run(ctx context.Context, ports Ports) error {
	runtime.LockOSThread()
	if !w.pin() {
		defer runtime.UnlockOSThread()
	} // else the thread ends with the worker
	for delay := time.Millisecond; ctx.Err() == nil; delay = min(2*delay, time.Second) {
		err := w.open(ports)
		if err == nil {
			delay = time.Millisecond
			err = w.serve(ctx)
		}
		if closeErr := w.close(); closeErr != nil {
			w.log.Warn("close socket", "err", closeErr)
		}
		if ctx.Err() != nil {
			return nil
		}
		w.log.Warn("steering port lost, binding anew", "iface", w.port.Load(), "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
	return nil
}

// pin ties the thread to the worker's CPU, if it has one that is to be had.
func (w *worker) pin() bool {
	if len(w.cfg.CPUs) == 0 {
		return false
	}
	cpu := w.cfg.CPUs[w.id%len(w.cfg.CPUs)]
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		w.log.Error("the worker's CPU is not to be had, it runs on any", "cpu", cpu, "err", err)
		return false
	}
	w.cpu.Store(int64(cpu))
	return true
}

// open binds the socket and lets divert know of the port.
func (w *worker) open(ports Ports) (err error) {
	port, err := ports.Ensure(w.id, w.cfg.portMTU())
	if err != nil {
		return fmt.Errorf("ensure steering port %d: %w", w.id, err)
	}
	w.port.Store(port.Name)
	w.umem, err = xsk.NewUMEM(xsk.UMEMConfig{Frames: w.frames(), FrameSize: w.cfg.FrameSize, HugePages: w.cfg.HugePages})
	if err != nil {
		return err
	}
	if err := w.attach(xdpprog.PortXDP, port.Worker); err != nil {
		return err
	}
	if err := w.attach(xdpprog.PortIngress, port.Kernel); err != nil {
		return err
	}
	cfg := xsk.Default(port.Worker, 0)
	half := uint32(w.cfg.Frames / 2)
	cfg.RxSize, cfg.FillSize, cfg.TxSize, cfg.CompletionSize = half, half, half, half
	cfg.MultiBuffer = xsk.KnowsMultiBuffer()
	cfg.TxBudget = burstSize
	if w.sock, err = w.umem.Open(cfg); err != nil {
		return err
	}
	w.sock.Refill()
	w.mode.Store(w.sock.Mode().String())
	if err := w.objs.SetSocket(w.id, w.sock.FD()); err != nil {
		return err
	}
	return w.objs.SetPort(w.id, port.Kernel)
}

func (w *worker) close() error {
	w.alive.Store(false)
	w.poller = nil
	w.listener.n = 0
	for i := range w.direct {
		w.closeDirect(&w.direct[i])
	}
	w.closeIntakes()
	var err error
	if w.sock != nil {
		err = w.sock.Close()
		w.sock = nil
	}
	if w.umem != nil {
		if closeErr := w.umem.Close(); err == nil {
			err = closeErr
		}
		w.umem = nil
	}
	return err
}

// serve is the burst loop; it returns when ctx ends or the socket is dead.
func (w *worker) serve(ctx context.Context) error {
	done := ctx.Done()
	for {
		select {
		case <-done:
			return nil
		default:
		}
		w.tick()
		if w.nowNs >= w.nextProbe {
			w.nextProbe = w.nowNs + idleMs*int64(time.Millisecond)
			if w.probe() == xsk.Dead {
				return fmt.Errorf("socket on %s: %w", w.port.Load(), w.sock.Err())
			}
		}
		snap := w.snap.Load()
		if snap.table != nil {
			w.objs.Beat(w.id, w.nowNs)
			w.alive.Store(true)
		}
		n := w.receive(w.sock)
		if n > 0 {
			w.process(snap)
			w.listen(snap)
			w.transmit(snap)
		}
		n += w.takePods(snap)
		n += w.takeIn(snap)
		w.sendReleased()
		more := w.housekeep(snap)
		if w.intakes.short {
			return errors.New("uplinks need a larger UMEM")
		}
		if w.umem.Kept() > w.cfg.Frames/2 {
			return errors.New("closed sockets have kept too many frames back")
		}
		w.events.Flush()
		w.denies.Flush()
		w.counts.Publish()
		w.hits.Flush()
		if n > 0 {
			w.lastBurst = w.nowNs
			continue
		}
		if more || w.nowNs-w.lastBurst < lingerNs {
			continue
		}
		w.rest()
		w.sleep()
	}
}

func (w *worker) tick() {
	w.nowNs, w.wallNs = w.clock.now()
	if w.awakeNs != 0 {
		w.counts.Add(stat.BusyNs, uint64(w.nowNs-w.awakeNs))
	}
	w.awakeNs = w.nowNs
}

// rest is called before the worker sleeps: that time doesn't count as busy.
func (w *worker) rest() {
	now, _ := w.clock.now()
	w.counts.Add(stat.BusyNs, uint64(now-w.awakeNs))
	w.counts.Add(stat.Polls, 1)
	w.awakeNs = 0
}

// housekeep does what is due beside packets: flows that began and ended in the
// kernel, expiry. It reports whether there are more of the former.
func (w *worker) housekeep(snap *snapshot) bool {
	more := w.readNotes()
	if w.nowNs < w.nextSweep {
		return more
	}
	w.nextSweep = w.nowNs + int64(5*time.Millisecond)
	w.sweep()
	w.purge(snap)
	w.openWanted(snap)
	w.closeStale(snap)
	w.goOn()
	w.tendIntakes()
	w.sampleRings()
	w.answer()
	w.live.Store(int64(w.flows.Len()))
	return more
}

// Notes are handed to a worker in lists of noteBatch at most, of which there are
// noteBatches, and one more that is being filled. notesATurn bounds how many notes
// are read between two bursts, to within a list.
const (
	noteBatch   = 256
	noteBatches = 16
	notesATurn  = 512
)

// readNotes takes in what divert has told, or a turn's share of it: then it reports
// that more is waiting.
func (w *worker) readNotes() bool {
	n := 0
	for n < notesATurn {
		var list []xdpprog.Note
		select {
		case list = <-w.inbox:
		default:
		}
		if len(list) == 0 {
			break
		}
		for i := range list {
			if note := &list[i]; note.Kind == xdpprog.NoteStart {
				w.started(note)
			} else {
				w.ended(note)
			}
		}
		n += len(list)
		w.read <- list[:0]
	}
	if n > 0 {
		w.offload.flush(w)
		w.noted = w.nowNs
	}
	return n >= notesATurn
}
