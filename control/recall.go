package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// recall is what agents remember of links that they have searched for: where each
// pod's was. With many sandboxes a search takes long, and the next agent has rules
// to publish before. What plugins have told of is remembered by sandboxes.
//
// A record holds if nothing has changed that an agent which had stayed would have
// noticed: the pod is the same by its UID and has the same addresses, the earlier
// agent's programs, slot and addresses are still on the link, and its other end is
// where it was. A search says the last word.
type recall struct {
	file string
	// left are the records of the earlier agent that nobody has asked for yet.
	left map[store.Key]record
	// found is where searches, or records that hold, have found attached pods.
	found map[store.Key]link.Found
	// unproven are attached pods that only a record speaks for.
	unproven map[store.Key]struct{}
	changed  bool   // what is to be remembered may have
	written  []byte // what is in the file
	failed   string // why it isn't
}

// record is what the file has of a pod.
type record struct {
	Namespace string       `json:"namespace"`
	Pod       string       `json:"pod"`
	UID       string       `json:"uid"`
	Addresses []netip.Addr `json:"addresses"`
	LinkLocal []netip.Addr `json:"linkLocal,omitempty"`
	Link      string       `json:"link"`
	Ifindex   int          `json:"ifindex"`
	MAC       string       `json:"mac"`     // the pod's
	HostMAC   string       `json:"hostMAC"` // the link's
	Inside    link.End     `json:"inside"`
}

// linksFile is where the links that were found are kept, beside the socket.
func linksFile(cfg Config) string { return cfg.Socket + ".links" }

// newRecall reads what an earlier agent remembered. What can't be read is not
// known: it is searched for.
func newRecall(file string) (*recall, error) {
	r := &recall{file: file, left: make(map[store.Key]record), found: make(map[store.Key]link.Found), unproven: make(map[store.Key]struct{})}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	var list []record
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		return r, fmt.Errorf("read remembered links: %w", err)
	}
	for _, x := range list {
		r.left[store.Key{Namespace: x.Namespace, Name: x.Pod}] = x
	}
	return r, nil
}

// of reports whether a record is of a pod. One without a UID can't be told from
// its successor.
func (x *record) of(p *store.Pod) bool {
	return x.UID != "" && x.UID == p.UID && slices.Equal(x.Addresses, p.Addrs())
}

// where is what the record says of the link.
func (x *record) where() (f link.Found, ok bool) {
	mac, err := net.ParseMAC(x.MAC)
	host, err2 := net.ParseMAC(x.HostMAC)
	if err != nil || err2 != nil || len(mac) != len(f.Link.MAC) || len(host) != len(f.Link.HostMAC) {
		return f, false
	}
	return link.Found{
		Link:      endpoint.Link{Ifindex: x.Ifindex, Name: x.Link, MAC: endpoint.MAC(mac), HostMAC: endpoint.MAC(host)},
		LinkLocal: x.LinkLocal, Inside: x.Inside,
	}, true
}

// recollect adds the links of those pods to found which an earlier agent has found,
// if its records hold. It reports whether there are any.
func (a *Agent) recollect(found map[netip.Addr]link.Found) (any bool, _ error) {
	r := a.recall
	at := make(map[int]store.Key) // by index
	var list []link.Found
	for key, x := range r.left {
		pod := a.wanted[key]
		if pod == nil {
			continue // it may not be known yet
		}
		delete(r.left, key)
		_, attached := a.attached[key]
		_, told := foundAt(pod, found)
		if f, ok := x.where(); ok && x.of(pod) && !attached && !told {
			at[f.Link.Ifindex] = key
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		return false, nil
	}
	still, err := link.Still(list)
	for _, f := range still {
		key := at[f.Link.Ifindex]
		pod := a.wanted[key]
		if !a.plane.Left(endpoint.Endpoint{Addrs: pod.Addrs(), Link: f.Link}) || a.othersLink(pod, f.Link.Ifindex) {
			continue
		}
		for _, addr := range pod.Addrs() {
			found[addr] = f
		}
		r.unproven[key], any = struct{}{}, true
	}
	return any, err
}

// foundAt returns where a pod was found.
func foundAt(pod *store.Pod, found map[netip.Addr]link.Found) (link.Found, bool) {
	for _, addr := range pod.Addrs() {
		if f, ok := found[addr]; ok {
			return f, true
		}
	}
	return link.Found{}, false
}

// prove compares what records said with what a search has found. Pods that are
// elsewhere are not attached any more; it returns them as they were. What the
// search has not found stays where it was, as it would have if the agent had.
func (a *Agent) prove(found map[netip.Addr]link.Found) (replaced []endpoint.Endpoint) {
	for key := range a.recall.unproven {
		ep, attached := a.attached[key]
		pod := a.wanted[key]
		if !attached || pod == nil {
			continue
		}
		hit, ok := foundAt(pod, found)
		if !ok || hit.Link == ep.Link && slices.Equal(hit.LinkLocal, ep.LinkLocal) || a.othersLink(pod, hit.Link.Ifindex) {
			continue
		}
		delete(a.attached, key)
		if hit.Link.Ifindex != ep.Link.Ifindex {
			replaced = append(replaced, ep)
			a.log.Info("pod is not where it was", "pod", key.String(), "iface", hit.Link.Name, "was", ep.Link.Name)
		}
	}
	clear(a.recall.unproven)
	return replaced
}

// remember keeps for the next agent where pods were found. If it can't, that one
// searches.
func (a *Agent) remember() {
	r := a.recall
	if !r.changed {
		return
	}
	data, err := json.Marshal(a.records())
	if err == nil && !bytes.Equal(data, r.written) {
		if err = r.write(data); err == nil {
			r.written = data
		}
	}
	why := ""
	if r.changed = err != nil; err != nil {
		why = err.Error()
	}
	if why != "" && why != r.failed {
		a.log.Warn("remember links", "err", err)
	}
	r.failed = why
}

// records describes where pods are that were searched for.
func (a *Agent) records() []record {
	list := []record{}
	for _, key := range slices.SortedFunc(maps.Keys(a.recall.found), compareKeys) {
		ep, attached := a.attached[key]
		f := a.recall.found[key]
		if !attached || f.Link.Ifindex != ep.Link.Ifindex {
			delete(a.recall.found, key)
			continue
		}
		list = append(list, record{
			Namespace: ep.Namespace, Pod: ep.Name, UID: ep.UID, Addresses: ep.Addrs, LinkLocal: ep.LinkLocal,
			Link: ep.Link.Name, Ifindex: ep.Link.Ifindex, Inside: f.Inside,
			MAC: net.HardwareAddr(ep.Link.MAC[:]).String(), HostMAC: net.HardwareAddr(ep.Link.HostMAC[:]).String(),
		})
	}
	return list
}

func (r *recall) write(data []byte) error {
	if err := os.MkdirAll(filepath.Dir(r.file), 0o755); err != nil {
		return err
	}
	tmp := r.file + ".new"
	err := os.WriteFile(tmp, data, 0o600)
	if err == nil {
		err = os.Rename(tmp, r.file)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}
