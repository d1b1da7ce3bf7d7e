// Package e2e holds tests only: the agent as a process of its own, in the
// network namespace of a node that bench/netlab builds, with pods in theirs,
// real sockets and real policies in manifests. They assert on what arrives and
// on what the agent's API says about it.
//
// The test binary is the agent: it starts itself anew with a variable set. A
// test leaves nothing behind, however it ends: the agent goes with its standard
// input, its bpffs is mounted nowhere, and the namespaces of test runs that
// were killed are swept by the next one. All need root.
package e2e
