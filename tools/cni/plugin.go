// Package cni is Sluice's CNI plugin. Chained behind the plugin that makes a
// pod's link, it tells the agent of the new link before the pod starts and
// returns when the pod's policy is in force on it; until then the link carries
// nothing. It implements the CNI specification, versions 0.3.0 to 1.1.0.
//
// The plugin is a process of some milliseconds per command and keeps nothing.
// It never changes addresses, routes or the result of the plugins before it.
package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/link"
)

// Error codes of STATUS (CNI specification 1.1, section 2, "Error").
const (
	codeUnavailable        = 50
	codeUnavailableLimited = 51
)

// shortTimeout is for questions that the agent answers at once.
const shortTimeout = 3 * time.Second

// versions are those that know prevResult (0.3.0 on).
var versions = version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

// Main serves one command, as the environment and stdin name it, and ends the
// process if that fails.
func Main(about string) {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del, Check: check, Status: status, GC: gc}, versions, about)
}

// add is ADD.
func add(args *skel.CmdArgs) error {
	c, bad := parse(args.StdinData)
	if bad != nil {
		return bad
	}
	if c.PrevResult == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "sluice-cni: no prevResult: the plugin must be chained behind one that makes the pod's link", "")
	}
	s, err := inspect(args, c)
	if err != nil {
		return types.NewError(types.ErrInternal, "sluice-cni: "+err.Error(), "")
	}
	// The plugin waits a little longer than the agent, to hear its reasons.
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout+c.timeout/10+100*time.Millisecond)
	defer cancel()
	if _, err := api.NewClient(c.Socket).AddSandbox(ctx, *s); err != nil {
		if err := c.away(s, err); err != nil {
			return err
		}
	}
	return c.pass()
}

// away decides what becomes of a pod whose policy no agent has put in force.
func (c *Conf) away(s *api.Sandbox, cause error) error {
	switch {
	case errors.Is(cause, api.ErrBadSandbox):
		return types.NewError(types.ErrInternal, "sluice-cni: the agent refused the sandbox", cause.Error())
	case c.OnAgentAway == AwayClosed:
		if err := link.Block(c.PinPath, s.Ifindex); err != nil {
			return types.NewError(types.ErrIOFailure, fmt.Sprintf("sluice-cni: close link %s without an agent", s.Link),
				errors.Join(err, cause).Error())
		}
		fmt.Fprintf(os.Stderr, "sluice-cni: %s stays closed until an agent attaches it: %v\n", s.Link, cause)
		return nil
	case errors.Is(cause, api.ErrNotInForce):
		return types.NewError(types.ErrTryAgainLater, fmt.Sprintf("sluice-cni: policy was not in force within %s", c.timeout), cause.Error())
	case answered(cause):
		return types.NewError(types.ErrTryAgainLater, "sluice-cni: the agent can't serve the sandbox", cause.Error())
	}
	return types.NewError(types.ErrTryAgainLater, "sluice-cni: no agent answers at "+c.Socket, cause.Error())
}

// pass prints prevResult as it came, unknown fields included.
func (c *Conf) pass() error {
	var says struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(c.RawPrev, &says); err != nil || says.CNIVersion != c.CNIVersion {
		return types.PrintResult(c.PrevResult, c.CNIVersion)
	}
	_, err := os.Stdout.Write(append(c.RawPrev, '\n'))
	return err
}

// del is DEL. It succeeds also without an agent, a sandbox or a prevResult. The
// link stays guarded until the plugins before take it away.
func del(args *skel.CmdArgs) error {
	c, bad := parse(args.StdinData)
	if bad != nil {
		return bad
	}
	ctx, cancel := context.WithTimeout(context.Background(), shortTimeout)
	defer cancel()
	if err := api.NewClient(c.Socket).DeleteSandbox(ctx, attachment(args)); err != nil {
		fmt.Fprintln(os.Stderr, "sluice-cni: the agent will find out that the sandbox has gone:", err)
	}
	link.SweepPins(c.PinPath)
	return nil
}

// check is CHECK: the pod's link is there and guarded, and policy is in force
// on it if an agent runs.
func check(args *skel.CmdArgs) error {
	c, bad := parse(args.StdinData)
	if bad != nil {
		return bad
	}
	if c.PrevResult == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "sluice-cni: no prevResult", "")
	}
	s, err := inspect(args, c)
	if err != nil {
		return types.NewError(types.ErrInternal, "sluice-cni: "+err.Error(), "")
	}
	ctx, cancel := context.WithTimeout(context.Background(), shortTimeout)
	defer cancel()
	_, err = api.NewClient(c.Socket).CheckSandbox(ctx, *s)
	if err == nil {
		return nil
	}
	if unreachable(err) {
		guarded, look := link.Guarded(c.PinPath, s.Ifindex)
		if look == nil && guarded {
			return nil
		}
		err = errors.Join(err, look)
	}
	return types.NewError(types.ErrInternal, fmt.Sprintf("sluice-cni: link %s is not enforced", s.Link), err.Error())
}

// status is STATUS: whether ADD would work.
func status(args *skel.CmdArgs) error {
	c, bad := parse(args.StdinData)
	if bad != nil {
		return bad
	}
	ctx, cancel := context.WithTimeout(context.Background(), shortTimeout)
	defer cancel()
	_, err := api.NewClient(c.Socket).Status(ctx)
	if err == nil {
		return nil
	}
	if c.OnAgentAway == AwayFail {
		return types.NewError(codeUnavailable, "sluice-cni: no agent answers at "+c.Socket, err.Error())
	}
	if err := link.CanBlock(c.PinPath); err != nil {
		return types.NewError(codeUnavailableLimited, "sluice-cni: no agent answers, and links can't be closed without one", err.Error())
	}
	return nil
}

// gc is GC: the agent forgets sandboxes that are not in the list of valid ones.
func gc(args *skel.CmdArgs) error {
	c, bad := parse(args.StdinData)
	if bad != nil {
		return bad
	}
	var valid []api.Attachment
	for _, v := range c.ValidAttachments {
		valid = append(valid, api.Attachment{ContainerID: v.ContainerID, IfName: v.IfName})
	}
	ctx, cancel := context.WithTimeout(context.Background(), shortTimeout)
	defer cancel()
	err := api.NewClient(c.Socket).KeepSandboxes(ctx, valid)
	link.SweepPins(c.PinPath)
	if err != nil && !unreachable(err) {
		return types.NewError(types.ErrInternal, "sluice-cni: collect garbage", err.Error())
	}
	return nil
}

// answered reports whether an agent has said what is wrong.
func answered(err error) bool {
	var lost *url.Error
	return !errors.As(err, &lost)
}

// unreachable reports whether no agent was there to answer.
func unreachable(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
