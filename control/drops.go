package control

import (
	"context"
	"time"

	"github.com/sluice-net/sluice/control/forward"
)

// flushEvery is how often what the host drops is summed up.
const flushEvery = time.Second

// tellDrops makes events of what the guard drops until ctx ends. That it can't is
// no reason not to guard.
func (a *Agent) tellDrops(ctx context.Context) error {
	if a.cfg.NFLogGroup == 0 {
		why := "nflogGroup is 0"
		a.services.deaf.Store(&why)
		return nil
	}
	for ctx.Err() == nil {
		err := a.hearDrops(ctx)
		if ctx.Err() != nil {
			return nil
		}
		why := err.Error()
		if was := a.services.deaf.Swap(&why); was == nil || *was != why {
			a.log.Warn("what the host drops of calls of Services is counted and has no events", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(serveRetry):
		}
	}
	return nil
}

// hearDrops makes events until something fails.
func (a *Agent) hearDrops(ctx context.Context) error {
	l, err := forward.Listen(uint16(a.cfg.NFLogGroup))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	a.services.deaf.Store(nil)
	lost := uint64(0)
	err = l.Read(ctx, flushEvery, a.plane.HostDropped, func() {
		a.plane.FlushDropped(l.Lost - lost)
		lost = l.Lost
	})
	_ = l.Close() // the second time, if ctx has ended
	return err
}

// silent says why what the guard drops has no events; "" if it has.
func (a *Agent) silent() string {
	if err := a.services.guard.Mute(); err != nil {
		return "the kernel does not log it (CONFIG_NFT_LOG, CONFIG_NFT_LIMIT, CONFIG_NETFILTER_NETLINK_LOG): " + err.Error()
	}
	if why := a.services.deaf.Load(); why != nil {
		return *why
	}
	return ""
}
