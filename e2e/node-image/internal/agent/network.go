package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/process"
)

// The Pods of a node hang on the CNI plugin `ptp`, each on its own pair of
// interfaces, instead of on a bridge: everything between two Pods then passes
// the node's routing and its Service rules, with or without br_netfilter on the
// host. Nodes of one Docker network will reach each other by plain routes,
// whichever --flannel-backend is asked for.
const cniConfig = `{
  "cniVersion": "1.0.0",
  "name": "k3nest",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": false,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": %q}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

// configureNetwork waits for the range that the controller manager gives the
// node and tells it to containerd, which makes the node Ready.
func (a *Agent) configureNetwork(ctx context.Context, client kubernetes.Interface) error {
	if len(a.Options.ClusterCIDR) > 0 {
		if err := masquerade(a.Options.ClusterCIDR[0]); err != nil {
			return err
		}
	}
	podCIDR, err := a.waitForPodCIDR(ctx, client)
	if err != nil {
		return err
	}
	file := filepath.Join(a.Dirs.CNIConfig(), "10-k3nest.conflist")
	content := fmt.Sprintf(cniConfig, podCIDR)
	if present, err := os.ReadFile(file); err == nil && string(present) == content {
		return nil
	}
	logging.Infof("The Pods of this node have %s", podCIDR)
	return layout.Write(file, []byte(content), 0o644)
}

func (a *Agent) waitForPodCIDR(ctx context.Context, client kubernetes.Interface) (string, error) {
	for {
		node, err := client.CoreV1().Nodes().Get(ctx, a.Options.NodeName, metav1.GetOptions{})
		if err == nil && node.Spec.PodCIDR != "" {
			return node.Spec.PodCIDR, nil
		}
		if err != nil && !apierrors.IsNotFound(err) {
			logging.Debugf("Read our Node: %v", err)
		}
		select {
		case <-ctx.Done():
			return "", errors.New("the node was stopped before it was given a Pod range")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// masquerade hides Pod addresses from everything outside the cluster, and from
// nothing inside.
func masquerade(clusterCIDR string) error {
	rule := []string{"POSTROUTING", "-s", clusterCIDR, "!", "-d", clusterCIDR,
		"-m", "comment", "--comment", "k3nest: Pods leave the cluster by the node's address", "-j", "MASQUERADE"}
	iptables := []string{"/usr/sbin/iptables", "-w", "-t", "nat"}
	if _, err := process.Output("iptables", append(append(iptables, "-C"), rule...), nil); err == nil {
		return nil
	}
	if _, err := process.Output("iptables", append(append(iptables, "-A"), rule...), nil); err != nil {
		return fmt.Errorf("let Pods reach the outside: %w", err)
	}
	return nil
}
