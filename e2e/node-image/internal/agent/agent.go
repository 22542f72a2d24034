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

	"k8s.io/client-go/kubernetes"

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
// and gives the node its network as soon as the API has given it a range.
func (a *Agent) RunNode(ctx context.Context, client kubernetes.Interface) error {
	if err := a.startKubelet(); err != nil {
		return err
	}
	if !a.Options.DisableKubeProxy {
		if err := a.startKubeProxy(); err != nil {
			return err
		}
	}
	if a.Options.FlannelBackend == "none" {
		return nil // docs.k3s.io/networking/basic-network-options: bring your own CNI
	}
	return a.configureNetwork(ctx, client)
}
