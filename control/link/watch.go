package link

import (
	"context"
	"time"

	"github.com/vishvananda/netlink"
)

// resubscribe is how soon a feed subscribes anew after its subscription ended.
const resubscribe = 100 * time.Millisecond

// relist is how often all is read anew, whatever events have said.
const relist = 30 * time.Second

// feed is a kind of the kernel's events, and what becomes of them.
type feed[T any] struct {
	subscribe func(chan<- T, <-chan struct{}) error
	list      func() (changed bool, err error) // reads all anew
	apply     func(*T)
}

func links(t *Table) *feed[netlink.LinkUpdate] {
	return &feed[netlink.LinkUpdate]{netlink.LinkSubscribe, t.listLinks, t.applyLink}
}

func addrs(t *Table) *feed[netlink.AddrUpdate] {
	return &feed[netlink.AddrUpdate]{netlink.AddrSubscribe, t.listAddrs, t.applyAddr}
}

// open subscribes and then reads all, so that no change is missed between the
// two; the events of the meantime come afterwards, and repeat what is known.
func (f *feed[T]) open() (updates chan T, stop chan struct{}, err error) {
	updates, stop = make(chan T, 256), make(chan struct{})
	if err = f.subscribe(updates, stop); err != nil {
		return nil, nil, err
	}
	if _, err = f.list(); err != nil {
		close(stop)
		go drain(updates)
		return nil, nil, err
	}
	return updates, stop, nil
}

// drain reads until the end, for who writes must not be held up.
func drain[T any](updates <-chan T) {
	for range updates {
	}
}

// follow calls changed, from a goroutine of its own, after each event, until ctx
// ends. When the kernel drops events, as more of them come than are read, the
// subscription ends: another one begins, all is read, and changed is called.
func (f *feed[T]) follow(ctx context.Context, changed func()) error {
	updates, stop, err := f.open()
	if err != nil {
		return err
	}
	go func() {
		for {
			end := context.AfterFunc(ctx, func() { close(stop) })
			f.serve(updates, changed)
			if !end() {
				return
			}
			close(stop) // releases the socket
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(resubscribe):
				}
				if updates, stop, err = f.open(); err == nil {
					break
				}
			}
			changed() // something was missed
		}
	}()
	return nil
}

// serve works on the events of a subscription until it ends.
func (f *feed[T]) serve(updates <-chan T, changed func()) {
	again := time.NewTicker(relist)
	defer again.Stop()
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return
			}
			f.apply(&u)
			changed()
		case <-again.C:
			// What can't be read stays as it was until the next time.
			if differs, err := f.list(); err == nil && differs {
				changed()
			}
		}
	}
}
