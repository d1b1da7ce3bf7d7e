// Package archtest holds the test that keeps the layering: which of Sluice's
// packages may import which, who alone may use a library, and where unsafe may
// stand. It parses the sources itself, so it needs no build and no cache.
package archtest
