package traffic

import (
	"math/bits"
	"time"
)

// subBits sets the histogram's resolution: 2^subBits buckets between a power
// of two and the next, so that a value is off by 1/2^subBits (0.8 %) at most.
const subBits = 7

const numBuckets = (64 - subBits + 1) << subBits

// Histogram counts durations in buckets whose width grows with their value.
// The zero value is empty. Recording takes a few ns and never allocates.
type Histogram struct {
	counts [numBuckets]uint64
	n, sum uint64
	max    uint64
}

// bucketOf returns the bucket of a value; values up to 2^(subBits+1) have one
// each.
func bucketOf(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// highest returns the largest value of a bucket.
func highest(b int) uint64 {
	if b < 2<<subBits {
		return uint64(b)
	}
	shift := b>>subBits - 1
	return uint64(b-shift<<subBits+1)<<shift - 1
}

// Record counts one duration; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	v := uint64(max(d, 0))
	h.counts[bucketOf(v)]++
	h.n++
	h.sum += v
	h.max = max(h.max, v)
}

// Merge adds what another histogram counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Mean returns the exact mean, 0 if nothing was recorded.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / h.n)
}

// Quantile returns the smallest value that a share q, 0 to 1, of the recorded
// durations does not exceed, rounded up to its bucket's end.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.n))
	if float64(rank) < q*float64(h.n) || rank == 0 {
		rank++
	}
	var seen uint64
	for b, n := range h.counts {
		if seen += n; n > 0 && seen >= rank {
			return time.Duration(min(highest(b), h.max))
		}
	}
	return time.Duration(h.max)
}

// add counts n durations of a bucket, as if each were its largest.
func (h *Histogram) add(bucket int, n uint64) {
	if n == 0 {
		return
	}
	h.counts[bucket] += n
	h.n += n
	h.sum += n * highest(bucket)
	h.max = max(h.max, highest(bucket))
}
