package xdpprog

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchAttr is the part of union bpf_attr that batch commands use
// (include/uapi/linux/bpf.h).
type batchAttr struct {
	inBatch, outBatch uint64
	keys, values      uint64
	count             uint32
	mapFD             uint32
	elemFlags, flags  uint64
}

const (
	bpfMapUpdateBatch = 26
	bpfMapDeleteBatch = 27
)

// updateBatch writes len(keys) entries in one system call and returns how many
// the kernel took. It allocates nothing.
func updateBatch[K, V any](fd int, keys []K, values []V) (int, error) {
	if len(keys) == 0 {
		return 0, nil
	}
	values = values[:len(keys)]
	attr := batchAttr{
		keys:   uint64(uintptr(unsafe.Pointer(unsafe.SliceData(keys)))),
		values: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(values)))),
		count:  uint32(len(keys)),
		mapFD:  uint32(fd),
	}
	return batch(bpfMapUpdateBatch, &attr, unsafe.Pointer(unsafe.SliceData(keys)), unsafe.Pointer(unsafe.SliceData(values)))
}

// deleteBatch removes entries; the kernel stops at the first that is absent,
// and the count tells where.
func deleteBatch[K any](fd int, keys []K) (int, error) {
	if len(keys) == 0 {
		return 0, nil
	}
	attr := batchAttr{
		keys:  uint64(uintptr(unsafe.Pointer(unsafe.SliceData(keys)))),
		count: uint32(len(keys)),
		mapFD: uint32(fd),
	}
	return batch(bpfMapDeleteBatch, &attr, unsafe.Pointer(unsafe.SliceData(keys)), nil)
}

// batch keeps keys and values reachable and unmoved for the call: the heap
// doesn't move, and callers pass slices that live on it. It is raw, as lookup is,
// because it never waits, and the Go runtime would take away the turn of a worker
// that is in the kernel for longer than 20 µs.
func batch(cmd uintptr, attr *batchAttr, keys, values unsafe.Pointer) (int, error) {
	_, _, errno := unix.RawSyscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	keep(keys)
	keep(values)
	if errno != 0 {
		return int(attr.count), errno
	}
	return int(attr.count), nil
}

//go:noinline
func keep(unsafe.Pointer) {}

// heartbeat maps the array of heartbeats into memory, shared with the kernel.
func mmapHeartbeats(fd int) ([]uint64, error) {
	size := MaxWorkers * 8
	page := unix.Getpagesize()
	size = (size + page - 1) / page * page
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map heartbeats: %w", err)
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(mem))), MaxWorkers), nil
}

// unmapHeartbeats undoes mmapHeartbeats.
func unmapHeartbeats(beats []uint64) error {
	page := unix.Getpagesize()
	size := (MaxWorkers*8 + page - 1) / page * page
	mem := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(beats))), size)
	return unix.Munmap(mem)
}

// mmapAsked maps the notes of what pods ask for into memory, shared with the
// kernel.
func mmapAsked(fd int, slots int) ([]uint64, error) {
	mem, err := unix.Mmap(fd, 0, slots*askedBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map notes of what pods ask for: %w", err)
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(mem))), len(mem)/8), nil
}

// unmapAsked undoes mmapAsked.
func unmapAsked(asked []uint64) error {
	if asked == nil {
		return nil
	}
	return unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(asked))), 8*len(asked)))
}

// noteFrom reads a record of the ring buffer, which is 8-byte aligned.
func noteFrom(raw []byte) (Note, bool) {
	var n Note
	if len(raw) < int(unsafe.Sizeof(n)) {
		return n, false
	}
	return *(*Note)(unsafe.Pointer(unsafe.SliceData(raw))), true
}

// elemAttr is the part of union bpf_attr that single-element commands use.
type elemAttr struct {
	mapFD      uint32
	_          uint32
	key, value uint64
	flags      uint64
}

const (
	bpfMapLookupElem          = 1
	bpfMapDeleteElem          = 3
	bpfMapLookupAndDeleteElem = 21 // of hash tables since Linux 5.14
)

// lookup reads one element into value. key and value are on the heap.
func lookup[K, V any](fd int, key *K, value *V) bool {
	return element(bpfMapLookupElem, fd, key, value)
}

// take is lookup, and removes the element.
func take[K, V any](fd int, key *K, value *V) bool {
	return element(bpfMapLookupAndDeleteElem, fd, key, value)
}

// remove removes an element, if it is there. key is on the heap.
func remove[K any](fd int, key *K) { element(bpfMapDeleteElem, fd, key, (*byte)(nil)) }

func element[K, V any](cmd uintptr, fd int, key *K, value *V) bool {
	attr := elemAttr{
		mapFD: uint32(fd),
		key:   uint64(uintptr(unsafe.Pointer(key))),
		value: uint64(uintptr(unsafe.Pointer(value))),
	}
	_, _, errno := unix.RawSyscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	keep(unsafe.Pointer(key))
	keep(unsafe.Pointer(value))
	return errno == 0
}
