package cluster

import (
	"context"
	"encoding/json"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// NodeDescription is what k3s writes on a Node besides what the kubelet does.
type NodeDescription struct {
	Name, IP   string
	ExternalIP []string
	EtcdName   string   // of a server whose datastore is etcd
	Args       []string // the command line after `k3s`, its command first
}

// What k3s calls the things by which etcd's members follow the Nodes.
const (
	EtcdNameAnnotation    = "etcd.k3s.cattle.io/node-name"
	EtcdAddressAnnotation = "etcd.k3s.cattle.io/node-address"
	EtcdRemoveAnnotation  = "etcd.k3s.cattle.io/remove"
	EtcdRemovedAnnotation = "etcd.k3s.cattle.io/removed-node-name"
	EtcdFinalizer         = "wrangler.cattle.io/managed-etcd-controller"
)

// Describe sets a server's role labels, which a kubelet may not set on itself,
// and k3s's annotations.
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
	metadata := map[string]any{"annotations": annotations}
	if d.Args[0] == "server" {
		labels := map[string]string{"node-role.kubernetes.io/control-plane": "true"}
		if d.EtcdName != "" {
			labels["node-role.kubernetes.io/etcd"] = "true"
			annotations[EtcdAddressAnnotation] = d.IP
			annotations[EtcdNameAnnotation] = d.EtcdName
			// The Node waits for its member to leave when it is deleted.
			metadata["finalizers"] = []string{EtcdFinalizer}
		}
		metadata["labels"] = labels
	}
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return err
	}
	nodes := client.CoreV1().Nodes()
	if _, err = nodes.Patch(ctx, d.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	if d.EtcdName == "" {
		return nil
	}
	patch, err = json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{voter()}}})
	if err != nil {
		return err
	}
	_, err = nodes.Patch(ctx, d.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// voter is how k3s says of a Node that its member of etcd has a vote. A server
// gets as far as to describe its Node only when it has one.
func voter() corev1.NodeCondition {
	now := metav1.Now()
	return corev1.NodeCondition{
		Type:               "EtcdIsVoter",
		Status:             corev1.ConditionTrue,
		Reason:             "MemberNotLearner",
		Message:            "Node is a voting member of the etcd cluster",
		LastHeartbeatTime:  now,
		LastTransitionTime: now,
	}
}

// hideSecrets: everybody who may read Nodes reads this annotation. A value that
// stands behind an equals sign becomes an element of its own, as k3s writes it.
func hideSecrets(args []string) []string {
	var elements []string
	for _, arg := range args {
		name, value, inline := strings.Cut(arg, "=")
		if inline && (strings.HasPrefix(arg, "--") || isSecret(name)) {
			elements = append(elements, name, value)
		} else {
			elements = append(elements, arg)
		}
	}
	for i := 1; i < len(elements); i++ {
		if isSecret(elements[i-1]) {
			elements[i] = "********"
		}
	}
	return elements
}

func isSecret(arg string) bool {
	switch arg {
	case "--token", "-token", "--t", "-t", "--agent-token", "-agent-token":
		return true
	}
	return false
}
