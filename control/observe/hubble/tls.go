package hubble

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"
)

// config returns the TLS configuration of the server, and an error if its files
// can't be used now.
func (t TLS) config() (*tls.Config, error) {
	files := &files{TLS: t}
	if _, err := files.current(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return files.current() },
	}, nil
}

// files keeps what was read until it changes. Files that can't be used, as in
// the middle of their renewal, leave the last good ones in force.
type files struct {
	TLS
	mu    sync.Mutex
	stamp [3]time.Time
	conf  *tls.Config
}

func (f *files) current() (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var stamp [3]time.Time
	for i, path := range []string{f.Cert, f.Key, f.ClientCA} {
		if info, err := os.Stat(path); err == nil {
			stamp[i] = info.ModTime()
		}
	}
	if f.conf != nil && stamp == f.stamp {
		return f.conf, nil
	}
	conf, err := f.read()
	if err != nil {
		if f.conf != nil {
			return f.conf, nil
		}
		return nil, err
	}
	f.conf, f.stamp = conf, stamp
	return conf, nil
}

func (f *files) read() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("read TLS certificate: %w", err)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{cert}}
	if f.ClientCA == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read CA of clients: %w", err)
	}
	conf.ClientCAs = x509.NewCertPool()
	if !conf.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read CA of clients: no certificate in %s", f.ClientCA)
	}
	conf.ClientAuth = tls.RequireAndVerifyClientCert
	return conf, nil
}
