// Package pmc adds the CPU's own counters to a Go benchmark: cycles,
// instructions, branch misses and cache misses an operation, where the build has
// the tag pmc and the machine has the counters. Elsewhere it does nothing, but
// with the tag says so once.
//
//	defer pmc.Count(b)()
//	for b.Loop() {
//
// What is counted is the benchmark's own thread, in user mode.
package pmc
