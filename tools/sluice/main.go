// Sluice enforces Kubernetes NetworkPolicy on a node, in userspace, on AF_XDP.
// This is its one binary: the agent and the tools around it.
//
// Data goes to stdout, messages go to stderr. The exit code is 0 if all went
// well, 1 if something failed or was denied, and 2 if the command was not
// understood.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// commands holds a constructor for each subcommand; the files of this package
// append theirs in init.
var commands []func() *cobra.Command

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

// exitError ends the process with a code of its own. Its message, if there is
// an error in it, goes to stderr.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError marks err as a command that was not understood.
func usageError(err error) error { return &exitError{code: exitUsage, err: err} }

// failed ends the process with code 1 and no further message: the output
// already says why.
func failed() error { return &exitError{code: exitFailed} }

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(onScreen(os.Stdout))
	root.SetErr(onScreen(os.Stderr))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	exit := &exitError{code: exitFailed, err: err}
	errors.As(err, &exit)
	switch {
	case errors.Is(exit.err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "Interrupted.")
	case exit.err != nil:
		fmt.Fprintln(onScreen(os.Stderr), "Error:", err)
	}
	return exit.code
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "Packet filter for Kubernetes nodes, in userspace, on AF_XDP",
		Long: `Sluice enforces Kubernetes NetworkPolicy on a node: first packets are judged in
userspace by workers on AF_XDP sockets, established flows stay in the kernel.

Exit codes: 0 all went well; 1 failed or denied; 2 not understood.`,
		Example: `  # See it work: a small node in network namespaces, with real traffic
  sudo sluice demo

  # Your own manifests on such a node
  sudo sluice lab up -f ./manifests`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	root.AddCommand(newVersionCommand())
	for _, construct := range commands {
		root.AddCommand(construct())
	}
	root.InitDefaultCompletionCmd()
	argsAreUsage(root)
	return root
}

// argsAreUsage makes a wrong number of arguments, flags that exclude each other,
// or an unknown subcommand, a usage error with a hint where to read on.
func argsAreUsage(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		check = cobra.ArbitraryArgs
		if cmd.HasSubCommands() {
			check = cobra.NoArgs
		}
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := cmp.Or(check(cmd, args), cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()); err != nil {
			if len(args) > 0 && !cmd.HasSubCommands() && strings.HasPrefix(err.Error(), "unknown command") {
				err = fmt.Errorf("unexpected argument %q", args[0])
			}
			return usageError(fmt.Errorf("%w\nSee '%s --help'", err, cmd.CommandPath()))
		}
		return nil
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, sub := range cmd.Commands() {
		argsAreUsage(sub)
	}
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  sluice version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "sluice", version())
			return err
		},
	}
}

// version is what the build recorded: the module's version, or the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	commit, changed := "unknown", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				changed = "+changes"
			}
		}
	}
	return commit + changed
}
