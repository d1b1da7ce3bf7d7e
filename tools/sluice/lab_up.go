package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/control/web"
	"github.com/sluice-net/sluice/tools/lab"
)

func newLabUpCommand() *cobra.Command {
	var flags labFlags
	var name, page string
	var detach, background bool
	cmd := &cobra.Command{
		Use:   "up -f {DIR | FILE}",
		Short: "Bring a lab up",
		Long: `Bring a lab up and keep it in step with its manifests until Ctrl-C, or with
--detach until 'sluice lab down'.`,
		Example: `  sluice lab up -f deploy/examples/three-tier
  sluice lab up -f ./manifests --cni=bridge --offload=off --detach
  sluice lab up -f ./manifests --web 127.0.0.1:8090   # flows and who talks to whom, in a browser`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := flags.options(name)
			if err != nil {
				return err
			}
			if err := (web.Config{Listen: page, Streams: 1}).Validate(); err != nil || strings.Contains(page, "://") {
				return usageError(fmt.Errorf("--web=%s: want a loopback address and a port", page))
			}
			opts.Web = page
			if detach {
				return detachLab(cmd.Context(), opts.Self)
			}
			return runLab(cmd.Context(), opts, background)
		},
	}
	flags.register(cmd)
	nameFlag(cmd, &name, lab.DefaultName, "name of the lab")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "return when the lab is up, and leave it running")
	cmd.Flags().StringVar(&page, "web", "", "serve a page with live flows at this loopback `address:port`")
	cmd.Flags().BoolVar(&background, "background", false, "")
	cmd.Flags().MarkHidden("background")
	return cmd
}

// readyFd is where a lab in the background says that it is up.
const readyFd = 3

// runLab runs a lab until the context ends.
func runLab(ctx context.Context, opts lab.Options, background bool) error {
	if background {
		unix.CloseOnExec(readyFd) // or agent and janitor keep it open
	}
	p := newProgress(os.Stderr)
	opts.Message, opts.Stage = p.message, p.stage
	if err := lab.SweepDead(); err != nil {
		p.message(err.Error())
	}
	l, err := lab.Up(ctx, opts)
	p.done()
	if err != nil {
		return err
	}
	p.message(fmt.Sprintf("Lab %s is up: %d pods, all policies in force.", opts.Name, len(l.State().Pods)))
	p.message("Flows: 'sluice observe', or 'hubble observe --server unix://" + l.HubblePath() + "'.")
	if addr := l.WebAddr(); addr != "" {
		p.message("Web page: http://" + addr + "/")
	}
	if background {
		if err := tellReady(l.LogPath()); err != nil {
			return errors.Join(err, l.Close())
		}
	} else {
		p.message("Look around with 'sluice lab status' and 'sluice lab exec'; Ctrl-C takes it down.")
	}
	err = l.Follow(ctx)
	p.stage("taking the lab down")
	err = errors.Join(err, l.Close())
	p.done()
	return err
}

func tellReady(log string) error {
	if err := redirectTo(log); err != nil {
		return err
	}
	ready := os.NewFile(readyFd, "ready")
	defer ready.Close()
	_, err := ready.WriteString("ready")
	return err
}

// detachLab runs this very command again in a session of its own and returns
// once that says that the lab is up.
func detachLab(ctx context.Context, self string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("create pipe: %w", err)
	}
	defer r.Close()
	// Of a flag that is given twice, the last value holds.
	cmd := exec.Command(self, append(os.Args[1:], "--detach=false", "--background")...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w} // becomes readyFd
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start lab: %w", err)
	}
	defer context.AfterFunc(ctx, func() { cmd.Process.Signal(unix.SIGTERM) })()
	said, err := io.ReadAll(r)
	if err == nil && len(said) > 0 {
		return nil
	}
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		return &exitError{code: code} // its message has been seen
	}
	return fmt.Errorf("lab did not come up: %w", err)
}
