// Package agent is the part of a node that runs Pods: containerd, the kubelet
// and kube-proxy, with the Pod network between them.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

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
}

// Prepare writes what the components read, except the certificates.
func (a *Agent) Prepare() error {
	if err := prepareHost(); err != nil {
		return err
	}
	if err := a.writeNodePassword(); err != nil {
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

// writeNodePassword keeps the one that is there. A server will compare it with
// the node's Secret when joining is built; a node must have had it from its
// first day (docs.k3s.io/architecture, "How agent node registration works").
func (a *Agent) writeNodePassword() error {
	_, err := os.Stat(layout.NodePasswordFile)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for the node password: %w", err)
	}
	password, err := pki.NewPassword()
	if err != nil {
		return err
	}
	if err := layout.Write(layout.NodePasswordFile, []byte(password+"\n"), 0o600); err != nil {
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
