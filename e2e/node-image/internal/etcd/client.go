// Package etcd reaches the etcd of this node and keeps its snapshots.
package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
)

// Local is where this node's member answers.
const Local = "https://127.0.0.1:2379"

// Client speaks to the member of this node.
func Client(dirs layout.Dirs) (*clientv3.Client, error) {
	return ClientOf(dirs, []string{Local})
}

// ClientOf speaks to whichever of the members answers.
func ClientOf(dirs layout.Dirs, members []string) (*clientv3.Client, error) {
	pair, err := tls.LoadX509KeyPair(dirs.TLS("etcd/client.crt"), dirs.TLS("etcd/client.key"))
	if err != nil {
		return nil, fmt.Errorf("load the etcd client certificate: %w; has `k3s server` run on this node?", err)
	}
	authority, err := os.ReadFile(dirs.TLS("etcd/server-ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("load etcd's CA: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return clientv3.New(clientv3.Config{
		Endpoints:   members,
		DialTimeout: 5 * time.Second,
		TLS:         &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12},
		Logger:      zap.NewNop(),
	})
}
