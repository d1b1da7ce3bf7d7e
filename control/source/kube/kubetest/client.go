package kubetest

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"
)

var kubeconfigs atomic.Int32

// Kubeconfig writes a kubeconfig for a bearer token. Without an address it is
// the server's own.
func (s *Server) Kubeconfig(token, address string) string {
	s.tb.Helper()
	if address == "" {
		address = s.Address()
	}
	c := clientcmdapi.NewConfig()
	c.Clusters["test"] = &clientcmdapi.Cluster{Server: "https://" + address, CertificateAuthority: s.path("certs/apiserver.crt"), TLSServerName: "kubernetes"}
	c.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: token}
	c.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	c.CurrentContext = "test"
	path := filepath.Join(s.dir, fmt.Sprintf("kubeconfig-%d", kubeconfigs.Add(1)))
	s.must(clientcmd.WriteToFile(*c, path))
	return path
}

// Before starts a proxy in front of the server, for who may do everything, that
// calls look with each request first. It returns a kubeconfig for it.
func (s *Server) Before(look func(*http.Request)) string {
	s.tb.Helper()
	transport, err := rest.TransportFor(s.Config(AdminToken))
	s.must(err)
	to, err := url.Parse(s.URL())
	s.must(err)
	proxy := &httputil.ReverseProxy{Transport: transport, FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, ErrorLog: log.New(io.Discard, "", 0)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		look(r)
		proxy.ServeHTTP(w, r)
	}))
	s.tb.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return writeKubeconfig(s.tb, srv.URL)
}

// writeKubeconfig writes a kubeconfig for a server that asks nobody who they are.
func writeKubeconfig(tb testing.TB, server string) string {
	c := clientcmdapi.NewConfig()
	c.Clusters["test"] = &clientcmdapi.Cluster{Server: server}
	c.Contexts["test"] = &clientcmdapi.Context{Cluster: "test"}
	c.CurrentContext = "test"
	path := filepath.Join(tb.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		tb.Fatal(err)
	}
	return path
}

// Config returns how a client of the test reaches the server.
func (s *Server) Config(token string) *rest.Config {
	return &rest.Config{Host: s.URL(), BearerToken: token, Dial: s.opts.Dial, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAFile: s.path("certs/apiserver.crt"), ServerName: "kubernetes"}}
}

// Client returns the clients of a user who may do everything.
func (s *Server) Client() (kubernetes.Interface, dynamic.Interface) {
	s.tb.Helper()
	k, err := kubernetes.NewForConfig(s.Config(AdminToken))
	s.must(err)
	d, err := dynamic.NewForConfig(s.Config(AdminToken))
	s.must(err)
	return k, d
}

// ServiceAccount makes a service account and returns a token of it.
func (s *Server) ServiceAccount(namespace, name string) string {
	s.tb.Helper()
	k, _ := s.Client()
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	_, err := k.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	s.must(err)
	t, err := k.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	s.must(err)
	return t.Status.Token
}

// Events lists what Sluice's agents have said in a namespace, by name. The API
// server says things of its own in "default": that it repairs the address of
// the Service "kubernetes", for one, if it sees the Service before the address.
func (s *Server) Events(namespace string) []corev1.Event {
	s.tb.Helper()
	k, _ := s.Client()
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	list, err := k.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "source=sluice-agent"})
	s.must(err)
	return list.Items
}

// Apply applies a stream of YAML documents on the server, as
// "kubectl apply --server-side" does.
func (s *Server) Apply(docs string) {
	s.tb.Helper()
	for doc := range strings.SplitSeq("\n"+docs, "\n---") {
		if strings.TrimSpace(doc) != "" {
			_, err := s.Try(doc)
			s.must(err)
		}
	}
}

// ApplyFile applies a file.
func (s *Server) ApplyFile(path string) {
	s.tb.Helper()
	b, err := os.ReadFile(path)
	s.must(err)
	s.Apply(string(b))
}

// Try applies one document and returns what the server made of it. A resource
// that is about to be served is waited for.
func (s *Server) Try(doc string) (*unstructured.Unstructured, error) {
	s.tb.Helper()
	var u unstructured.Unstructured
	s.must(yaml.Unmarshal([]byte(doc), &u.Object))
	if u.Object == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	r, err := s.resource(ctx, &u)
	if err != nil {
		return nil, err
	}
	return r.Apply(ctx, u.GetName(), &u, metav1.ApplyOptions{FieldManager: "test", Force: true})
}

// Delete deletes an object by its document.
func (s *Server) Delete(doc string) {
	s.tb.Helper()
	var u unstructured.Unstructured
	s.must(yaml.Unmarshal([]byte(doc), &u.Object))
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	r, err := s.resource(ctx, &u)
	s.must(err)
	now := int64(0)
	s.must(r.Delete(ctx, u.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &now}))
}

// Get returns an object by its document.
func (s *Server) Get(doc string) (*unstructured.Unstructured, error) {
	s.tb.Helper()
	var u unstructured.Unstructured
	s.must(yaml.Unmarshal([]byte(doc), &u.Object))
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	r, err := s.resource(ctx, &u)
	s.must(err)
	return r.Get(ctx, u.GetName(), metav1.GetOptions{})
}

// resource finds the client for an object's kind.
func (s *Server) resource(ctx context.Context, u *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	k, d := s.Client()
	gvk := u.GroupVersionKind()
	for {
		list, err := k.Discovery().ServerResourcesForGroupVersion(gvk.GroupVersion().String())
		if err == nil {
			for _, r := range list.APIResources {
				if r.Kind != gvk.Kind || strings.Contains(r.Name, "/") {
					continue
				}
				at := d.Resource(schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: r.Name})
				if r.Namespaced {
					ns := u.GetNamespace()
					if ns == "" {
						ns = metav1.NamespaceDefault
					}
					return at.Namespace(ns), nil
				}
				return at, nil
			}
			err = fmt.Errorf("the server has no %s", gvk)
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
