package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/tools/lab"
)

func init() { commands = append(commands, newLabCommand) }

func newLabCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run your manifests on a small node in network namespaces",
		Long: `A lab is a node in network namespaces, made from a folder of manifests: every Pod
becomes a namespace with the addresses of its status, or others if it has none,
every containerPort a real echo server, and a Sluice agent enforces the policies.
Edits of the folder take effect at once. Nothing of the machine's own network is
used, and nothing is left behind. Needs root.`,
		Example: `  # Bring a lab up, look around in it from another terminal, take it down
  sluice lab up -f ./manifests
  sluice lab status
  sluice lab exec production/frontend -- nc -vz 10.0.1.20 8080
  sluice lab down

  # Try what is allowed, and compare with what should be
  sluice lab probe -f ./manifests --queries queries.jsonl --expect`,
	}
	cmd.AddCommand(newLabUpCommand(), newLabExecCommand(), newLabStatusCommand(), newLabDownCommand(),
		newLabProbeCommand(), newLabJanitorCommand())
	return cmd
}

// labFlags are the flags of the commands that bring a lab up.
type labFlags struct {
	manifests string
	offload   string
	cni       string
	mtu       int
	failOpen  bool
}

func (f *labFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.manifests, "filename", "f", "", "file or folder of manifests (required)")
	cmd.Flags().BoolVar(&f.failOpen, "fail-open", false, "let new flows pass while no agent runs")
	f.registerNode(cmd)
}

// registerNode registers the flags that say what the node is like.
func (f *labFlags) registerNode(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.offload, "offload", "on", "leave established flows to the kernel: on or off")
	flags.StringVar(&f.cni, "cni", string(netlab.Routed), "how pods are connected: routed or bridge")
	flags.IntVar(&f.mtu, "mtu", 1500, "MTU of all links, in bytes")
	cmd.RegisterFlagCompletionFunc("offload", cobra.FixedCompletions([]string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("cni", cobra.FixedCompletions([]string{"routed", "bridge"}, cobra.ShellCompDirectiveNoFileComp))
}

func (f *labFlags) options(name string) (lab.Options, error) {
	opts := lab.Default(f.manifests)
	opts.Name, opts.MTU, opts.FailOpen = name, f.mtu, f.failOpen
	opts.CNI = netlab.Shape(f.cni)
	var errs []error
	switch f.offload {
	case "on", "off":
		opts.Offload = f.offload == "on"
	default:
		errs = append(errs, fmt.Errorf("--offload=%s: want on or off", f.offload))
	}
	if f.manifests == "" {
		errs = append(errs, errors.New("--filename: want a file or folder of manifests"))
	} else if _, err := os.Stat(f.manifests); err != nil {
		errs = append(errs, fmt.Errorf("manifests: %w", err))
	}
	cfg := netlab.Default(name)
	cfg.Shape, cfg.MTU = opts.CNI, opts.MTU
	if err := errors.Join(append(errs, cfg.Validate())...); err != nil {
		return opts, usageError(err)
	}
	var err error
	if opts.Self, err = os.Executable(); err != nil {
		return opts, fmt.Errorf("find own binary: %w", err)
	}
	return opts, needRoot()
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root: run with sudo")
	}
	return nil
}

func nameFlag(cmd *cobra.Command, name *string, value, usage string) {
	nameLab(cmd, "name", name, value, usage)
}

// nameLab registers a flag that names a lab which is up.
func nameLab(cmd *cobra.Command, flag string, name *string, value, usage string) {
	cmd.Flags().StringVar(name, flag, value, usage)
	cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		live, _ := lab.Live() // without labs there is nothing to complete
		var names []string
		for _, s := range live {
			names = append(names, s.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
}

const findUsage = `name of the lab (default: the only one that is up, or "` + lab.DefaultName + `")`

func newLabExecCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "exec {NAMESPACE/POD | host | ip:ADDRESS} -- COMMAND [ARG...]",
		Short: "Run a command inside a pod, or on the node, of a lab",
		Long: `Run a command of this machine with the network of a pod, of the node ("host") or
of an external host that a lab has. Terminal, signals and exit code are the
command's own.`,
		Example: `  sluice lab exec production/frontend -- ping -c1 10.0.1.20
  sluice lab exec production/frontend -- bash
  sluice lab exec host -- ip route`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needRoot(); err != nil {
				return err
			}
			if dash := cmd.ArgsLenAtDash(); dash != 1 && dash != -1 {
				return usageError(errors.New("want one pod, then --, then the command"))
			}
			state, err := lab.Find(name)
			if err != nil {
				return err
			}
			if _, err := state.Netns(args[0]); err != nil {
				return usageError(err)
			}
			return lab.Exec(state, args[0], args[1:])
		},
		ValidArgsFunction: completePods,
	}
	nameFlag(cmd, &name, "", findUsage)
	return cmd
}

func completePods(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	name, _ := cmd.Flags().GetString("name")
	state, err := lab.Find(name)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	targets := []string{"host"}
	for _, p := range state.Pods {
		targets = append(targets, p.Namespace+"/"+p.Name)
	}
	return targets, cobra.ShellCompDirectiveNoFileComp
}

func newLabDownCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:     "down",
		Short:   "Take a lab down",
		Long:    "Take a lab down, and clean up after labs that ended without doing it themselves.",
		Example: "  sluice lab down\n  sluice lab down --name second",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot(); err != nil {
				return err
			}
			down, err := lab.Down(cmd.Context(), name)
			if err != nil {
				return err
			}
			for _, name := range down {
				fmt.Fprintf(cmd.ErrOrStderr(), "Lab %s is down.\n", name)
			}
			return nil
		},
	}
	nameFlag(cmd, &name, "", findUsage)
	return cmd
}

// newLabJanitorCommand is for the lab's own use.
func newLabJanitorCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "janitor NAME",
		Short:  "Wait for the owner of a lab to end, and clean up after it",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return lab.Janitor(args[0], os.Stdin) },
	}
}

// redirectTo sends all further output of this process to a file.
func redirectTo(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return fmt.Errorf("redirect output: %w", err)
		}
	}
	return nil
}
