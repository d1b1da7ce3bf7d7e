// Package apiserver is a module of its own that pins the kube-apiserver and the
// etcd that tests run against, and holds no code: build.sh builds both once. So
// the product's module needs nothing of k8s.io/kubernetes.
package apiserver
