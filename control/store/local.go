package store

import "net/netip"

// Local is what a pod's network says of it before the API does: a pod has its
// addresses when its sandbox is made, and its status names them later.
type Local struct {
	UID   string // of the pod, or ""
	Addrs []netip.Addr
}

// SetLocal says that a pod, which may not be known yet, has addresses. They
// hold as long as its own status names none.
func (tx *Tx) SetLocal(key Key, l Local) {
	tx.st.local[key] = l
	if e := tx.st.pods[key]; e != nil {
		tx.SetPod(e.written())
	}
}

// DeleteLocal forgets them.
func (tx *Tx) DeleteLocal(key Key) {
	if _, ok := tx.st.local[key]; !ok {
		return
	}
	delete(tx.st.local, key)
	if e := tx.st.pods[key]; e != nil {
		tx.SetPod(e.written())
	}
}

// HasLocal reports whether a pod's addresses are those of its sandbox, as its
// status names none.
func (v View) HasLocal(key Key) bool {
	e := v.st.pods[key]
	return e != nil && e.bare != nil
}

// written is the pod as its source wrote it.
func (e *podEntry) written() *Pod {
	if e.bare != nil {
		return e.bare
	}
	return e.pod
}

// localize gives a pod without addresses those of its sandbox. A sandbox of
// another UID is that of the pod all the same if this one has no addresses: the
// API's copy of a static pod has a UID of its own.
func (st *state) localize(p *Pod) (pod, bare *Pod) {
	l, ok := st.local[p.Key()]
	if !ok || len(p.IPs) > 0 || p.HostNetwork || p.Phase == Finished {
		return p, nil
	}
	full := *p
	full.IPs = l.Addrs
	return &full, p
}
