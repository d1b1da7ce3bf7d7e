package xdpprog

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
)

// addrs is what the maps of addresses hold. Only the agent writes them, and reads
// them once, as it starts: to change one slot costs what changes of it, however
// many pods the node has.
type addrs struct {
	mu   sync.Mutex
	own  map[uint32][]Addr // by slot
	pods map[uint32][]Addr // by slot
	slot map[Addr]uint32   // of pods
}

// readAddrs learns what an earlier agent left.
func (o *Objects) readAddrs() error {
	a := &o.addrs
	a.own, a.pods, a.slot = map[uint32][]Addr{}, map[uint32][]Addr{}, map[Addr]uint32{}
	var own OwnAddr
	var any uint8
	it := o.maps.OwnAddrs.Iterate()
	for it.Next(&own, &any) {
		a.own[own.Slot] = append(a.own[own.Slot], own.Addr)
	}
	var addr Addr
	var slot uint32
	pods := o.maps.Pods.Iterate()
	for pods.Next(&addr, &slot) {
		a.pods[slot], a.slot[addr] = append(a.pods[slot], addr), slot
	}
	if err := errors.Join(it.Err(), pods.Err()); err != nil {
		return fmt.Errorf("read addresses of pods: %w", err)
	}
	return nil
}

// SetOwnAddrs replaces the addresses that a slot may speak for.
func (o *Objects) SetOwnAddrs(slot uint32, addrs []Addr) error {
	a := &o.addrs
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	has := a.own[slot]
	for _, x := range addrs {
		if slices.Contains(has, x) {
			continue
		}
		if err := o.maps.OwnAddrs.Put(&OwnAddr{Addr: x, Slot: slot}, uint8(1)); err != nil {
			errs = append(errs, err)
			continue
		}
		has = append(has, x)
	}
	left := has[:0]
	for _, x := range has {
		if slices.Contains(addrs, x) {
			left = append(left, x)
		} else if err := gone(o.maps.OwnAddrs.Delete(&OwnAddr{Addr: x, Slot: slot})); err != nil {
			errs, left = append(errs, err), append(left, x)
		}
	}
	a.own[slot] = left
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set own addresses of endpoint %d: %w", slot, err)
	}
	return nil
}

// SetPodAddrs makes addrs the addresses of the pod of a slot, and no others. An
// address that another slot has taken over meanwhile stays that one's.
func (o *Objects) SetPodAddrs(slot uint32, addrs []Addr) error {
	a := &o.addrs
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	var left []Addr
	for _, x := range a.pods[slot] {
		if slices.Contains(addrs, x) || a.slot[x] != slot {
			continue
		}
		if err := gone(o.maps.Pods.Delete(&x)); err != nil {
			errs, left = append(errs, err), append(left, x)
			continue
		}
		delete(a.slot, x)
	}
	for _, x := range addrs {
		if of, there := a.slot[x]; !there || of != slot {
			if err := o.maps.Pods.Put(&x, slot); err != nil {
				errs = append(errs, err)
				continue
			}
			a.slot[x] = slot
		}
		left = append(left, x)
	}
	a.pods[slot] = left
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set addresses of the pod of endpoint %d: %w", slot, err)
	}
	return nil
}

// PodAddrs returns the addresses of the pod of a slot, but for those that another
// slot has taken over.
func (o *Objects) PodAddrs(slot uint32) []Addr {
	a := &o.addrs
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Addr
	for _, x := range a.pods[slot] {
		if a.slot[x] == slot {
			out = append(out, x)
		}
	}
	return out
}

// gone takes it for done that there is nothing to delete.
func gone(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
