package cluster

import (
	"context"
	"encoding/json"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// NodeDescription is what k3s writes on a Node besides what the kubelet does.
type NodeDescription struct {
	Name, IP   string
	ExternalIP []string
	EtcdName   string
	Args       []string // the command line after `k3s`
}

// Describe sets the role labels, which a kubelet may not set on itself, and
// k3s's annotations.
func (d NodeDescription) Describe(ctx context.Context, client kubernetes.Interface) error {
	args, err := json.Marshal(hideSecrets(d.Args))
	if err != nil {
		return err
	}
	annotations := map[string]string{
		"k3s.io/hostname":    d.Name,
		"k3s.io/internal-ip": d.IP,
		"k3s.io/node-args":   string(args),
	}
	if len(d.ExternalIP) > 0 {
		annotations["k3s.io/external-ip"] = strings.Join(d.ExternalIP, ",")
	}
	labels := map[string]string{"node-role.kubernetes.io/control-plane": "true"}
	if d.EtcdName != "" {
		labels["node-role.kubernetes.io/etcd"] = "true"
		annotations["etcd.k3s.cattle.io/node-address"] = d.IP
		annotations["etcd.k3s.cattle.io/node-name"] = d.EtcdName
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"labels": labels, "annotations": annotations},
	})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, d.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

// hideSecrets: everybody who may read Nodes reads this annotation.
func hideSecrets(args []string) []string {
	hidden := make([]string, len(args))
	secret := func(arg string) bool {
		name := strings.TrimLeft(arg, "-")
		return name == "token" || name == "t" || name == "agent-token"
	}
	for i, arg := range args {
		name, _, inline := strings.Cut(arg, "=")
		switch {
		case inline && secret(name):
			hidden[i] = name + "=********"
		case i > 0 && secret(args[i-1]):
			hidden[i] = "********"
		default:
			hidden[i] = arg
		}
	}
	return hidden
}
