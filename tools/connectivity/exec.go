package connectivity

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
)

// execByAPI executes through the API server, as kubectl exec does: by a
// WebSocket, or by SPDY where a server or a proxy knows only that.
func execByAPI(cfg *rest.Config) (Exec, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register types: %w", err)
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	core := rest.CopyConfig(cfg)
	core.GroupVersion, core.APIPath = &corev1.SchemeGroupVersion, "/api"
	core.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(core)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	params := runtime.NewParameterCodec(scheme)
	return func(ctx context.Context, namespace, pod string, command []string) ([]byte, error) {
		url := client.Post().Namespace(namespace).Resource("pods").Name(pod).SubResource("exec").
			VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, params).URL()
		socket, err := remotecommand.NewWebSocketExecutor(cfg, "GET", url.String())
		if err != nil {
			return nil, fmt.Errorf("make executor: %w", err)
		}
		spdy, err := remotecommand.NewSPDYExecutor(cfg, "POST", url)
		if err != nil {
			return nil, fmt.Errorf("make executor: %w", err)
		}
		either, err := remotecommand.NewFallbackExecutor(socket, spdy, func(err error) bool {
			return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
		})
		if err != nil {
			return nil, fmt.Errorf("make executor: %w", err)
		}
		var out, said bytes.Buffer
		if err := either.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &said}); err != nil {
			return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
		}
		return out.Bytes(), nil
	}, nil
}
