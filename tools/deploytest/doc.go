// Package deploytest tries the deployment out: the manifests on a real API
// server, and the containers that they describe, from the image as it is built,
// by a real container runtime on a node in network namespaces. It is tests only;
// make test-deploy gives them what they need.
package deploytest
