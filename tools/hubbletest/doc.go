// Package hubbletest runs the stock hubble CLI against the agent of a lab, with
// real traffic, and Hubble Relay against agents' servers. `make test-hubble` builds
// both and says where they are.
package hubbletest
