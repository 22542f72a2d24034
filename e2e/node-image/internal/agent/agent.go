// Package agent is the part of a node that runs Pods: containerd, the kubelet
// and kube-proxy, with the Pod network between them.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"k3nest.dev/k3nest/e2e/node-image/internal/cluster"
	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/options"
	"k3nest.dev/k3nest/e2e/node-image/internal/pki"
	"k3nest.dev/k3nest/e2e/node-image/internal/process"
)

// Agent is this node's.
type Agent struct {
	Options *options.Options
	Dirs    layout.Dirs
	Group   *process.Group
	NodeIP  string
	Server  string // the API, as the kubelet and kube-proxy reach it

	Password string // the node's; Prepare reads it
}

// Prepare writes what the components read, except the certificates.
func (a *Agent) Prepare() error {
	if err := prepareHost(); err != nil {
		return err
	}
	if err := a.settleNodePassword(); err != nil {
		return err
	}
	if err := a.writeContainerdConfig(); err != nil {
		return err
	}
	authority := a.Dirs.Agent("server-ca.crt")
	return errors.Join(
		pki.WriteComponentKubeconfig(a.Dirs.Agent("kubelet.kubeconfig"), a.Server, authority, a.Dirs.Agent("client-kubelet")),
		pki.WriteComponentKubeconfig(a.Dirs.Agent("kubeproxy.kubeconfig"), a.Server, authority, a.Dirs.Agent("client-kube-proxy")),
	)
}

// settleNodePassword keeps the password that is there: a server compares it with
// the node's Secret (docs.k3s.io/architecture, "How agent node registration works").
func (a *Agent) settleNodePassword() error {
	stored, err := os.ReadFile(layout.NodePasswordFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the node password: %w", err)
	}
	if a.Password = strings.TrimSpace(string(stored)); a.Password != "" {
		return nil
	}
	if a.Password, err = pki.NewPassword(); err != nil {
		return err
	}
	if err := layout.Write(layout.NodePasswordFile, []byte(a.Password+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the node password: %w", err)
	}
	return nil
}

// RunNode starts the kubelet and kube-proxy, which need containerd and the API,
// and keeps the node's network in step with the Nodes for as long as running.
func (a *Agent) RunNode(running context.Context, nodes *cluster.Nodes) error {
	if a.Options.FlannelBackend != "none" { // docs.k3s.io/networking/basic-network-options: bring your own CNI
		if err := a.keepNetwork(running, nodes); err != nil {
			return err
		}
	}
	if err := a.startKubelet(); err != nil {
		return err
	}
	if a.Options.DisableKubeProxy {
		return nil
	}
	return a.startKubeProxy()
}
