package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/tools/observe"
)

// flowChoice is which flows a command line asks for.
type flowChoice struct {
	observe.Selection
	filters      observe.Filters
	since, until string
	duration     time.Duration
}

func (c *flowChoice) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	if flags.Lookup("filename") == nil { // whose short form it has
		flags.BoolVarP(&c.Follow, "follow", "f", false, "go on with what comes")
	}
	flags.Uint64Var(&c.Last, "last", 0, fmt.Sprintf("the last N events that pass the filters (default %d)", observe.DefaultLast))
	flags.Uint64Var(&c.First, "first", 0, "the first N events held that pass the filters")
	flags.BoolVar(&c.All, "all", false, "all events held")
	flags.StringVar(&c.since, "since", "", "from then on: a duration ago as 5m, or a time as 2026-01-02T15:04:05Z")
	flags.StringVar(&c.until, "until", "", "until then, likewise")
	flags.DurationVar(&c.duration, "duration", 0, "follow for so long, then end")
	for _, f := range observe.Flags() {
		flags.VarP(filterFlag{&c.filters, f.Name}, f.Name, f.Short, f.Usage)
		flags.Lookup(f.Name).NoOptDefVal = f.NoValue
	}
}

// selection is valid once; the default of Last is for what is not followed.
func (c *flowChoice) selection(now time.Time) (*observe.Selection, error) {
	var errs [5]error
	if c.Since, errs[0] = observe.ParseTime(c.since, now); errs[0] != nil {
		errs[0] = fmt.Errorf("--since: %w", errs[0])
	}
	if c.Until, errs[1] = observe.ParseTime(c.until, now); errs[1] != nil {
		errs[1] = fmt.Errorf("--until: %w", errs[1])
	}
	c.Allow, c.Deny, errs[2] = c.filters.Requests()
	errs[3] = c.Validate()
	if c.duration < 0 {
		errs[4] = errors.New("--duration: want more than 0")
	}
	if !c.Follow && !c.All && c.First == 0 && c.Last == 0 && c.since == "" && c.until == "" {
		c.Last = observe.DefaultLast
	}
	return &c.Selection, errors.Join(errs[:]...)
}

// patient has a server that goes away waited for, and says so.
func (c *flowChoice) patient(errs io.Writer) {
	var gone time.Time
	c.Away = func(err error) {
		if err != nil {
			gone = time.Now()
			fmt.Fprintf(errs, "The server has gone away (%v); waiting for it.\n", err)
			return
		}
		fmt.Fprintf(errs, "The server is back after %v.\n", time.Since(gone).Round(time.Millisecond))
	}
}

// bounded ends the context after --duration.
func (c *flowChoice) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.duration == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.duration)
}

// filterFlag is one flag of filters that are read together, in their order.
type filterFlag struct {
	filters *observe.Filters
	name    string
}

func (filterFlag) String() string       { return "" }
func (filterFlag) Type() string         { return "value" }
func (f filterFlag) Set(v string) error { return f.filters.Set(f.name, v) }

// sizeFlag is a number of bytes, with a unit if one likes.
type sizeFlag struct{ bytes *int64 }

var units = []struct {
	name  string
	bytes int64
}{{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"", 1}}

func (sizeFlag) Type() string { return "size" }

func (f sizeFlag) String() string {
	if f.bytes == nil {
		return ""
	}
	for _, u := range units {
		if *f.bytes%u.bytes == 0 && *f.bytes > 0 {
			return strconv.FormatInt(*f.bytes/u.bytes, 10) + u.name
		}
	}
	return "0"
}

func (f sizeFlag) Set(v string) error {
	for _, u := range units {
		number, ok := strings.CutSuffix(strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(v), "B"), "I"), u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 1 || n > 1<<53/u.bytes {
			return fmt.Errorf("%q: want a number of bytes, as 100M", v)
		}
		*f.bytes = n * u.bytes
		return nil
	}
	return nil
}
