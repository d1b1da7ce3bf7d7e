package connectivity

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

func namespaceYAML(o ClusterOptions) string {
	// One pod is in a node's network, which only the widest level allows.
	return fmt.Sprintf(`apiVersion: v1
kind: Namespace
metadata:
  name: %s
  labels: {app.kubernetes.io/name: sluice-connectivity, pod-security.kubernetes.io/enforce: privileged}
`, o.Namespace)
}

func serviceYAML(o ClusterOptions) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s, namespace: %s}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {name: %s}
  ports: [{name: echo, port: %d, targetPort: %d, protocol: TCP}]
`, Server, o.Namespace, Server, servicePort, serverPort)
}

// podYAML makes a pod that echoes. The client is with the server if it can be,
// the other one on another node: both ways are tried.
func podYAML(o ClusterOptions, name string) string {
	port, extra := uint16(serverPort), ""
	const with = "{weight: 100, podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {name: client}}}}"
	switch name {
	case Server:
		extra = "  affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [" + with + "]}}\n"
	case Other:
		extra = "  affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [" + with + "]}}\n"
	case Host:
		port, extra = o.NodePort, "  hostNetwork: true\n  affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: ["+with+"]}}\n"
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {name: %s}}
spec:
  restartPolicy: Always
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  enableServiceLinks: false
%s  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: echo
    image: %q
    imagePullPolicy: IfNotPresent
    command: [/sluice, connectivity, serve, --listen=:%d]
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 128Mi}}
    readinessProbe: {tcpSocket: {port: %d}, periodSeconds: 1}
`, name, o.Namespace, name, extra, o.Image, port, port)
}

// Apply implements Target. When they are in force nobody says: see Settle.
func (c *cluster) Apply(ctx context.Context, want map[string]string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.client.Resource(policies).Namespace(c.o.Namespace)
	var service []netip.Addr
	for _, family := range []int{4, 6} {
		if a, ok := c.service[family]; ok {
			service = append(service, a)
		}
	}
	for name, spec := range want {
		var u unstructured.Unstructured
		if err := yaml.UnmarshalStrict([]byte(Manifest(c.o.Namespace, name, spec, service)), &u.Object); err != nil {
			return fmt.Errorf("read own policy %s: %w", name, err)
		}
		if _, err := at.Apply(ctx, name, &u, metav1.ApplyOptions{FieldManager: "sluice-connectivity", Force: true}); err != nil {
			return fmt.Errorf("apply policy %s: %w", name, err)
		}
		c.applied[name] = true
	}
	for name := range c.applied {
		if _, keep := want[name]; keep {
			continue
		}
		if err := at.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete policy %s: %w", name, err)
		}
		delete(c.applied, name)
	}
	return nil
}

// closePatience bounds the removal of a run's objects.
const closePatience = 30 * time.Second

// Close implements Target. It has time of its own: a run that was interrupted
// leaves nothing either.
func (c *cluster) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	var errs []error
	zero := int64(0)
	now := metav1.DeleteOptions{GracePeriodSeconds: &zero}
	for _, kind := range []schema.GroupVersionResource{policies, podsOf} {
		err := c.client.Resource(kind).Namespace(c.o.Namespace).DeleteCollection(ctx, now, metav1.ListOptions{})
		if err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", kind.Resource, err))
		}
	}
	if err := c.client.Resource(services).Namespace(c.o.Namespace).Delete(ctx, Server, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		errs = append(errs, fmt.Errorf("delete Service: %w", err))
	}
	if err := c.client.Resource(namespaces).Delete(ctx, c.o.Namespace, metav1.DeleteOptions{}); err != nil {
		errs = append(errs, fmt.Errorf("delete namespace: %w", err))
	}
	return errors.Join(errs...)
}
