package control

import (
	"runtime/debug"
	"sync"
)

// gcPercent is how much garbage may gather, in percent of what is alive. Half of
// Go's default: packets make none, and most of an agent's objects live long, so
// that it costs little and saves a quarter of the memory of a large cluster's.
const gcPercent = 50

// lean makes the collector thrifty, unless it was told to be more so.
func lean() {
	if was := debug.SetGCPercent(gcPercent); was >= 0 && was < gcPercent {
		debug.SetGCPercent(was)
	}
}

// giveBack returns, once, what the first lists of a cluster have left behind.
var giveBack = sync.OnceFunc(func() { go debug.FreeOSMemory() })
