package connectivity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// Exec runs a command in a pod's only container and returns what it printed.
type Exec func(ctx context.Context, namespace, pod string, command []string) ([]byte, error)

// ClusterOptions say how to try a cluster.
type ClusterOptions struct {
	REST      *rest.Config
	Namespace string
	Image     string           // of Sluice, whose binary serves and calls
	World     []netip.AddrPort // at most one a family; a TCP connection is opened
	NodePort  uint16           // at which a pod in the node's network serves
	Ready     time.Duration    // until the pods run
	Settle    time.Duration    // until policies are in force
	Exec      Exec             // nil: by the API
	Say       func(string)
}

// DefaultClusterOptions are those of a user who says nothing.
func DefaultClusterOptions() ClusterOptions {
	return ClusterOptions{
		Namespace: space, Image: "sluice:latest", NodePort: 18099, Ready: 2 * time.Minute, Settle: 30 * time.Second,
		World: []netip.AddrPort{netip.MustParseAddrPort("1.1.1.1:443"), netip.MustParseAddrPort("[2606:4700:4700::1111]:443")},
		Say:   func(string) {},
	}
}

// Host is the pod in the network of a node.
const Host = "node"

var (
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	podsOf     = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	services   = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	policies   = schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}
)

// cluster tries a cluster out, through its API.
type cluster struct {
	o       ClusterOptions
	client  dynamic.Interface
	addrs   map[string]map[int]netip.Addr // of pods, by family
	service map[int]netip.Addr
	world   map[int]netip.AddrPort
	noWorld map[int]error // why there is none

	mu      sync.Mutex
	applied map[string]bool // names of policies
}

// NewCluster makes pods and a Service in a namespace of their own. The caller
// must Close it.
func NewCluster(ctx context.Context, o ClusterOptions) (_ Target, err error) {
	c := &cluster{o: o, addrs: map[string]map[int]netip.Addr{}, service: map[int]netip.Addr{},
		world: map[int]netip.AddrPort{}, noWorld: map[int]error{}, applied: map[string]bool{}}
	if c.client, err = dynamic.NewForConfig(o.REST); err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	if c.o.Exec == nil {
		if c.o.Exec, err = execByAPI(o.REST); err != nil {
			return nil, err
		}
	}
	// Created, not applied: what is there already belongs to someone else.
	if err := c.create(ctx, namespaces, namespaceYAML(o)); err != nil {
		return nil, fmt.Errorf("%w (after a run that was killed: kubectl delete namespace %s)", err, o.Namespace)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := c.create(ctx, services, serviceYAML(o)); err != nil {
		return nil, err
	}
	for _, name := range []string{Client, Server, Other, Host} {
		if err := c.create(ctx, podsOf, podYAML(o, name)); err != nil {
			return nil, err
		}
	}
	if err := c.await(ctx); err != nil {
		return nil, err
	}
	return c, c.lookAtWorld(ctx)
}

func (c *cluster) create(ctx context.Context, kind schema.GroupVersionResource, text string) error {
	var u unstructured.Unstructured
	if err := yaml.UnmarshalStrict([]byte(text), &u.Object); err != nil {
		return fmt.Errorf("read own manifest: %w", err)
	}
	var at dynamic.ResourceInterface = c.client.Resource(kind)
	if kind != namespaces {
		at = c.client.Resource(kind).Namespace(c.o.Namespace)
	}
	if _, err := at.Create(ctx, &u, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create %s %s: %w", kind.Resource, u.GetName(), err)
	}
	return nil
}

// await returns when all pods are ready and addresses are known.
func (c *cluster) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.o.Ready)
	defer cancel()
	said := ""
	for {
		waiting, err := c.look(ctx)
		if err == nil && len(waiting) == 0 {
			return nil
		}
		if text := strings.Join(waiting, "; "); err == nil && text != said {
			said = text
			c.o.Say("waiting for " + text)
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("pods are not ready after %v: %s", c.o.Ready, said), err)
		case <-time.After(time.Second):
		}
	}
}

// look reads addresses and says which pods are not ready.
func (c *cluster) look(ctx context.Context) (waiting []string, err error) {
	list, err := c.client.Resource(podsOf).Namespace(c.o.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	for _, p := range list.Items {
		if why := notReady(p.Object); why != "" {
			waiting = append(waiting, p.GetName()+": "+why)
			continue
		}
		ips, _, _ := unstructured.NestedSlice(p.Object, "status", "podIPs")
		c.addrs[p.GetName()] = byFamily(ips, "ip")
	}
	s, err := c.client.Resource(services).Namespace(c.o.Namespace).Get(ctx, Server, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get Service: %w", err)
	}
	ips, _, _ := unstructured.NestedSlice(s.Object, "spec", "clusterIPs")
	c.service = byFamily(ips, "")
	return waiting, nil
}

func notReady(pod map[string]any) string {
	phase, _, _ := unstructured.NestedString(pod, "status", "phase")
	conditions, _, _ := unstructured.NestedSlice(pod, "status", "conditions")
	why := phase
	for _, x := range conditions {
		m, _ := x.(map[string]any)
		if m["type"] == "Ready" && m["status"] == "True" && phase == "Running" {
			return ""
		}
		if text, ok := m["message"].(string); ok && text != "" {
			why = phase + ", " + text
		}
	}
	if why == "" {
		why = "not seen by a node"
	}
	return why
}

// byFamily sorts addresses; the first of a family counts.
func byFamily(list []any, field string) map[int]netip.Addr {
	out := map[int]netip.Addr{}
	for _, x := range list {
		text, _ := x.(string)
		if m, ok := x.(map[string]any); ok {
			text, _ = m[field].(string)
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		family := 6
		if a.Is4() {
			family = 4
		}
		if _, have := out[family]; !have {
			out[family] = a
		}
	}
	return out
}

// lookAtWorld finds out what of the world is there without any policy: a node's
// own connections are not judged.
func (c *cluster) lookAtWorld(ctx context.Context) error {
	for _, w := range c.o.World {
		family := 6
		if w.Addr().Is4() {
			family = 4
		}
		a, err := c.run(ctx, Host, "dial", w.String(), "--echo=false")
		if err != nil {
			return err
		}
		c.world[family] = w
		if !a.Passed {
			c.noWorld[family] = fmt.Errorf("the node does not reach %v either: %s", w, a.Seen)
		}
	}
	return nil
}

// run executes a command of ours in a pod.
func (c *cluster) run(ctx context.Context, pod string, args ...string) (Attempt, error) {
	out, err := c.o.Exec(ctx, c.o.Namespace, pod, append([]string{"/sluice", "connectivity"}, args...))
	if err != nil {
		return Attempt{}, fmt.Errorf("execute in pod %s: %w", pod, err)
	}
	var a Attempt
	if err := json.Unmarshal(out, &a); err != nil {
		return a, fmt.Errorf("answer of pod %s: %q: %w", pod, out, err)
	}
	return a, nil
}

// Settle implements Settler.
func (c *cluster) Settle() time.Duration { return c.o.Settle }

// Try implements Target.
func (c *cluster) Try(ctx context.Context, from string, to Dest, family int) (Outcome, error) {
	skip := func(what string) (Outcome, error) {
		return Outcome{}, fmt.Errorf("%w: %s has no IPv%d address", ErrSkip, what, family)
	}
	if _, ok := c.addrs[from][family]; !ok {
		return skip("pod " + from)
	}
	args := []string{"dial"}
	at := func(a netip.Addr, port uint16) { args = append(args, netip.AddrPortFrom(a, port).String()) }
	switch to {
	case Pod:
		at(c.addrs[Server][family], serverPort)
	case Service:
		a, ok := c.service[family]
		if !ok {
			return skip("the Service")
		}
		at(a, servicePort)
	case Node:
		a, ok := c.addrs[Host][family]
		if !ok {
			return skip("the node")
		}
		at(a, c.o.NodePort)
	case World:
		w, ok := c.world[family]
		if err := c.noWorld[family]; err != nil || !ok {
			return Outcome{}, fmt.Errorf("%w: %w", ErrSkip, errors.Join(err, unnamed(ok, family)))
		}
		args = append(args, w.String(), "--echo=false")
	case DNS:
		args = []string{"resolve", Server + "." + c.o.Namespace + ".svc", "--family", strconv.Itoa(family)}
	}
	a, err := c.run(ctx, from, args...)
	if err == nil && a.Skip != "" {
		err = fmt.Errorf("%w: %s", ErrSkip, a.Skip)
	}
	return Outcome{a.Passed, a.Seen}, err
}

func unnamed(named bool, family int) error {
	if named {
		return nil
	}
	return fmt.Errorf("no address of the world for IPv%d", family)
}
