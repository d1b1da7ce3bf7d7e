// Package hubbletest runs the stock hubble CLI against the agent of a lab, with
// real traffic. `make test-hubble` builds the CLI and says where it is.
package hubbletest
