//go:build (amd64 || arm64) && !purego

package xsk

// prefetch asks the processor for the first cache line of n descriptors' data.
//
//go:noescape
func prefetch(mem *byte, d *Desc, n int)
