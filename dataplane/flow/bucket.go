package flow

import "math/bits"

const (
	ways       = 8 // entries that a bucket indexes
	bucketLoad = 5 // of these, used on average in a full table
	maxProbes  = 8 // buckets in which an entry may be: its home and those of its stride
)

// bucket is one cache line of the index: 16-bit fingerprints, 0 if empty, and
// the entries that they stand for.
type bucket struct {
	tag    [2]uint64 // 4 lanes each
	ref    [ways]Ref
	passed uint32 // entries indexed further on because this bucket was full
	_      [12]byte
}

const (
	laneLow  = 0x0001_0001_0001_0001
	laneHigh = 0x8000_8000_8000_8000
)

// path is the sequence of buckets in which a hash may be: the home, from the
// hash's high bits, then a stride of its own, so that full buckets don't
// cluster. The number of buckets is a prime: all of them are different.
type path struct{ at, stride, n int }

func home(hash uint64, n int) int {
	at, _ := bits.Mul64(hash, uint64(n))
	return int(at)
}

func newPath(hash uint64, n int) path {
	stride, _ := bits.Mul64(bits.RotateLeft64(hash, 32), uint64(n-1))
	return path{at: home(hash, n), stride: int(stride) + 1, n: n}
}

func (p *path) next() {
	if p.at += p.stride; p.at >= p.n {
		p.at -= p.n
	}
}

// prime returns the least prime that is not below n, or 1.
func prime(n int) int {
	for ; ; n++ {
		d := 2
		for d*d <= n && n%d != 0 {
			d++
		}
		if d*d > n {
			return n
		}
	}
}

// fingerprint is made of the low bits of a hash and is never 0, which is an empty
// way, nor 1: an empty way beside one with that is what zeroLanes marks falsely.
func fingerprint(hash uint64) uint64 { return hash&0xffff | 2 }

// zeroLanes marks the highest bit of each lane of w that is 0. Lanes above a
// marked one may be marked falsely, if they are 1; the lowest mark is always right.
func zeroLanes(w uint64) uint64 { return (w - laneLow) &^ w & laneHigh }

// candidate returns the first entry whose fingerprint fits, or NoRef, without
// a branch.
func (b *bucket) candidate(hash uint64) Ref {
	f := fingerprint(hash) * laneLow
	lo := bits.TrailingZeros64(zeroLanes(b.tag[0]^f)) >> 4 // 4 if none
	hi := bits.TrailingZeros64(zeroLanes(b.tag[1]^f)) >> 4
	way := lo + hi*(lo>>2) // 8 if none
	return b.ref[way&7] | -Ref(way>>3)
}

// match returns a bit for each way whose fingerprint fits, and possibly some
// more, but none that is empty.
func (b *bucket) match(hash uint64) uint8 {
	f := fingerprint(hash) * laneLow
	return gather(zeroLanes(b.tag[0]^f)) | gather(zeroLanes(b.tag[1]^f))<<4
}

// vacant returns a bit for each empty way.
func (b *bucket) vacant() (m uint8) {
	for i := range ways {
		if b.tag[i/4]>>(i%4*16)&0xffff == 0 {
			m |= 1 << i
		}
	}
	return m
}

// gather packs the lane marks of a word into 4 bits.
func gather(marks uint64) uint8 {
	return uint8((marks >> 15 * 0x0001_0002_0004_0008) >> 48)
}

// empty returns an empty way.
func (b *bucket) empty() (uint32, bool) {
	i := bits.TrailingZeros8(b.vacant())
	return uint32(i), i < ways
}

func (b *bucket) set(way uint32, hash uint64, r Ref) {
	shift := way % 4 * 16
	b.tag[way/4] = b.tag[way/4]&^(0xffff<<shift) | fingerprint(hash)<<shift
	b.ref[way] = r
}

func (b *bucket) clear(way uint32) {
	b.tag[way/4] &^= 0xffff << (way % 4 * 16)
}
