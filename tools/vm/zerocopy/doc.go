// Package zerocopy tests AF_XDP zero-copy on virtio_net, in a guest of tools/vm
// with four NICs: one generates, two are under test and one receives. With the
// build tag guest it has tests; elsewhere there are no such NICs.
package zerocopy
