//go:build !amd64 || race || purego

package classify

// tables is nothing where there is no assembly. The race detector, which
// wouldn't see what assembly reads, gets none.
type tables struct{}

func (t *Table) prepare() {}

func (t *Table) classifyFast([]Query, []Verdict) bool { return false }
