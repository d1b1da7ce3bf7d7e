// Package xsk moves frames between a device and the process through AF_XDP
// sockets: a UMEM, its frames, and for each socket the four rings that it
// shares with the kernel.
//
// # Life of a frame
//
// A frame has one holder at any instant: the free stack of its UMEM, the user,
// or a socket's rings. Refill (or Fill) lends free frames to the kernel, Recv
// brings them back full, Send lends them again, Reclaim (or Complete) brings
// them back sent, Free puts them on the stack. A frame received on one socket
// may be sent on any other of the same UMEM: only its descriptor moves.
//
//	for {
//		if st := rx.Wait(timeoutMs); st == xsk.Dead { … }
//		n := rx.Recv(descs)
//		… judge, pack what goes on into descs[:m], rest to u.FreeDescs …
//		k := tx.Send(descs[:m])
//		u.FreeDescs(descs[k:m])
//		tx.Kick()
//		tx.Reclaim()
//		rx.Refill()
//		rx.Wake()
//	}
//
// # Ownership
//
// A UMEM and all its sockets belong to one goroutine; there is no lock. The
// other side of each ring is the kernel's. Only Stats may be called from
// elsewhere. Opening and closing take milliseconds and allocate; nothing else
// does.
//
// # Cost
//
// Against a ring in memory, in bursts of 64, Recv, Send, Fill and Complete cost
// 0.8 to 1.3 ns a descriptor, of which 0.6 go to noting who holds the frame;
// Alloc and Free together 0.8 to 1.0 (BenchmarkBurst, AMD EPYC). A call reads
// and writes the memory shared with the kernel at most once each. Over a veth
// pair with all of the kernel's work in the same thread, a 60-byte packet costs
// 1.1 µs from Send to Recv (BenchmarkVeth, Linux 6.18).
//
// # What it never does
//
// It never copies a frame, never allocates after Open, never blocks but in
// Wait, never falls back silently from what was asked for (but Auto, whose
// outcome is Socket.Mode), and never frees a frame that a device may still
// write into. It attaches no program and fills no XSKMAP: give Socket.FD to
// whoever does. Indices that the other side of a ring can't have written
// honestly stop the ring rather than being believed.
package xsk
