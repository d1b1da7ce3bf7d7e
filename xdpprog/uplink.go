package xdpprog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// PutUplink tells uplink_steer of a NIC. Its sockets come before.
func (o *Objects) PutUplink(ifindex int, u Uplink) error {
	if err := o.maps.Uplinks.Put(uint32(ifindex), &u); err != nil {
		return fmt.Errorf("write uplink %d: %w", ifindex, err)
	}
	return nil
}

// DropUplink has uplink_steer pass all that a NIC receives.
func (o *Objects) DropUplink(ifindex int) error {
	if err := o.maps.Uplinks.Delete(uint32(ifindex)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget uplink %d: %w", ifindex, err)
	}
	return nil
}

// SetUplinkSocket gives a queue of an uplink its AF_XDP socket, until that is
// closed. at is Uplink.Base and the queue.
func (o *Objects) SetUplinkSocket(at, fd int) error {
	if err := o.maps.UplinkXsks.Put(uint32(at), uint32(fd)); err != nil {
		return fmt.Errorf("set socket %d of uplinks: %w", at, err)
	}
	return nil
}

// PinnedUplinks lists the NICs that programs of an earlier agent are pinned to.
func (o *Objects) PinnedUplinks() ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(o.cfg.PinPath, "links"))
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	var out []int
	for _, e := range entries {
		if number, ok := strings.CutPrefix(e.Name(), UplinkXDP.String()+"-"); ok {
			if ifindex, err := strconv.Atoi(number); err == nil {
				out = append(out, ifindex)
			}
		}
	}
	return out, nil
}

// ForgetAsked clears the notes of what the pod of a slot has asked for, as
// another one gets the slot.
func (o *Objects) ForgetAsked(slot uint32) {
	for i := range o.askedOf(slot) {
		atomic.StoreUint64(&o.askedOf(slot)[i], 0)
	}
}

// NoteAsked notes what pods have asked for in flows that were opened before
// divert took such notes. divert may take others at the same time.
func (o *Objects) NoteAsked() error {
	return o.EachFlow(func(k *FlowKey, v *FlowValue) {
		port := k.APort
		if v.Initiator == 1 {
			port = k.BPort
		}
		o.NoteAskedFrom(v.Slot[v.Initiator&1], port)
	})
}

// NoteAskedFrom notes that the pod of a slot opens a flow from a port.
func (o *Objects) NoteAskedFrom(slot uint32, port uint16) {
	if words := o.askedOf(slot); words != nil {
		if word, bit := &words[port/64], uint64(1)<<(port%64); atomic.LoadUint64(word)&bit == 0 {
			atomic.OrUint64(word, bit)
		}
	}
}

// askedOf returns the notes of a slot, in memory shared with divert; nil: none
// are taken.
func (o *Objects) askedOf(slot uint32) []uint64 {
	const words = askedBytes / 8
	if at := int(slot) * words; at+words <= len(o.asked) {
		return o.asked[at : at+words]
	}
	return nil
}
