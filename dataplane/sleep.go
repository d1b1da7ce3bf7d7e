package dataplane

import "github.com/sluice-net/sluice/dataplane/xsk"

// patience is how long the worker may sleep: less while notes keep coming,
// which don't wake it, or while answers are held.
func (w *worker) patience() int {
	wait := idleMs
	if w.nowNs-w.noted < notedLatelyNs {
		wait = busyMs
	}
	ln := &w.listener
	for i := range ln.waits[:ln.n] {
		wait = min(wait, max(int((ln.waits[i].dueNs-w.nowNs)/1e6), 0)+1)
	}
	return wait
}

// sleep waits for packets on any of the worker's sockets, and for the release
// of what it holds.
func (w *worker) sleep() {
	ln := &w.listener
	if ln.n == 0 && len(w.hearing) == 0 && len(w.intakes.open) == 0 {
		w.sock.Wait(w.patience())
		return
	}
	if w.poller == nil {
		w.poller = xsk.NewPoller(ln.bell.fd, w.sockets()...)
	}
	w.poller.Wait(w.patience())
	if w.poller.Woken() {
		ln.bell.hush()
	}
}

// probe finds sockets whose link has gone: nothing else tells, least of all
// while others are busy. The pods' and uplinks' are closed; only the steering
// port's makes the worker start anew, which is what Dead says.
func (w *worker) probe() xsk.Status {
	for i := len(w.hearing) - 1; i >= 0; i-- {
		if d := &w.direct[w.hearing[i]]; d.sock.Probe() == xsk.Dead {
			w.closeDirect(d)
		}
	}
	w.dropDead()
	return w.sock.Probe()
}

// sockets lists those that receive.
func (w *worker) sockets() []*xsk.Socket {
	socks := []*xsk.Socket{w.sock}
	for _, slot := range w.hearing {
		socks = append(socks, w.direct[slot].sock)
	}
	for i := range w.intakes.open {
		if sock := w.intakes.open[i].sock; sock != nil {
			socks = append(socks, sock)
		}
	}
	return socks
}
