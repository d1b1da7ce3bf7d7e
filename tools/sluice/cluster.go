package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/tools/verdict"
)

// readCluster loads manifests, whatever they are like.
func readCluster(cmd *cobra.Command, manifests, domains string) (*verdict.Cluster, error) {
	if manifests == "" {
		return nil, usageError(errors.New("--filename: want a file or folder of manifests"))
	}
	var names map[string][]netip.Addr
	if domains != "" {
		var err error
		if names, err = verdict.ReadDomains(domains); err != nil {
			return nil, usageError(err)
		}
	}
	oneShotGC()
	if manifests == "-" {
		dir, err := os.MkdirTemp("", "sluice-")
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		defer os.RemoveAll(dir)
		if manifests, err = spool(cmd.InOrStdin(), dir); err != nil {
			return nil, usageError(fmt.Errorf("read manifests: %w", err))
		}
	}
	c, err := verdict.Load(manifests, names)
	if err != nil {
		return nil, usageError(err)
	}
	return c, nil
}

// spool makes a file of what comes, to be read as any other.
func spool(in io.Reader, dir string) (path string, err error) {
	path = filepath.Join(dir, "stdin")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, in)
	return path, errors.Join(err, f.Close())
}

// oneShotGC lets the heap grow to 16 MB before it is first collected. A small
// cluster never gets there, which saves a quarter of the time to its answers.
func oneShotGC() { debug.SetGCPercent(400) }

// loadCluster loads manifests and says on stderr what of them is not in force
// as written. What can't be read at all is an error.
func loadCluster(cmd *cobra.Command, manifests, domains string) (*verdict.Cluster, error) {
	c, err := readCluster(cmd, manifests, domains)
	if err != nil {
		return nil, err
	}
	if err := c.Check(); err != nil {
		return nil, usageError(err)
	}
	for _, r := range c.State.Rejections {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s; %s\n", verdict.Fault(r), r.Effect)
	}
	for _, n := range c.State.Notes {
		fmt.Fprintln(cmd.ErrOrStderr(), n)
	}
	return c, nil
}
