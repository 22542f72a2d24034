package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"k3nest.dev/k3nest/e2e/node-image/internal/cluster"
	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/process"
)

// The Pods of a node hang on the CNI plugin `ptp`, each on its own pair of
// interfaces, instead of on a bridge: everything between two Pods then passes
// the node's routing and its Service rules, with or without br_netfilter on the
// host. Nodes of one Docker network reach each other by plain routes (routes.go),
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

// keepNetwork gives the node its Pod network, which makes it Ready, as soon as the
// controller manager has given it a range, and keeps the ways to other nodes.
func (a *Agent) keepNetwork(ctx context.Context, nodes *cluster.Nodes) error {
	if err := masquerade(a.Options.ClusterCIDR[0]); err != nil {
		return err
	}
	go nodes.Follow(ctx, "keep the Pod network", func(all []*corev1.Node) error {
		for _, node := range all {
			if node.Name == a.Options.NodeName && node.Spec.PodCIDR != "" {
				if err := a.writeNetworkConfig(node.Spec.PodCIDR); err != nil {
					return fmt.Errorf("write the CNI configuration: %w", err)
				}
			}
		}
		return syncRoutes(wantedRoutes(all, a.Options.NodeName))
	})
	return nil
}

func (a *Agent) writeNetworkConfig(podCIDR string) error {
	file := filepath.Join(a.Dirs.CNIConfig(), "10-k3nest.conflist")
	content := fmt.Sprintf(cniConfig, podCIDR)
	if present, err := os.ReadFile(file); err == nil && string(present) == content {
		return nil
	}
	logging.Infof("The Pods of this node have %s", podCIDR)
	return layout.Write(file, []byte(content), 0o644)
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
