package flow

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePages asks for huge pages behind the entries, where the kernel gives them to who
// asks (/sys/kernel/mm/transparent_hugepage/enabled): new flows take one entry after
// the other, and would have a page fault every 32 of them.
func hugePages(entries []Entry) {
	page := uintptr(unix.Getpagesize())
	first := unsafe.Pointer(unsafe.SliceData(entries))
	memory := unsafe.Slice((*byte)(first), uintptr(len(entries))*unsafe.Sizeof(Entry{}))
	memory = memory[min(-uintptr(first)&(page-1), uintptr(len(memory))):]
	if memory = memory[:uintptr(len(memory))&^(page-1)]; len(memory) > 0 {
		_ = unix.Madvise(memory, unix.MADV_HUGEPAGE) // without them all works
	}
}
