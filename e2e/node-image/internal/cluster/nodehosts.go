package cluster

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// NodeHosts reads the list of nodes that CoreDNS answers for; none if there is
// no such ConfigMap yet.
func NodeHosts(ctx context.Context, client kubernetes.Interface) []string {
	found, err := client.CoreV1().ConfigMaps("kube-system").Get(ctx, "coredns", metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return lines(found.Data["NodeHosts"])
}

// MergeNodeHosts gives every node its line, takes away those of nodes that are
// gone, and keeps what others wrote there (k3d adds host.k3d.internal).
func MergeNodeHosts(present []string, nodes, gone map[string]string) []string {
	var merged []string
	for _, line := range present {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		_, isNode := nodes[fields[1]]
		_, wasNode := gone[fields[1]]
		if !isNode && !wasNode {
			merged = append(merged, line)
		}
	}
	for name, address := range nodes {
		merged = append(merged, address+" "+name)
	}
	slices.Sort(merged)
	return slices.Compact(merged)
}

// KeepNodeHosts watches the Nodes until ctx ends. A watch that breaks is begun
// again with a fresh list.
func KeepNodeHosts(ctx context.Context, client kubernetes.Interface) {
	known := map[string]string{}
	for ctx.Err() == nil {
		if err := followNodes(ctx, client, known); err != nil {
			logging.Debugf("Watch the Nodes for CoreDNS: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func followNodes(ctx context.Context, client kubernetes.Interface, known map[string]string) error {
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	watch, err := client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	defer watch.Stop()

	nodes := map[string]string{}
	for i := range list.Items {
		note(nodes, &list.Items[i])
	}
	for {
		if err := updateNodeHosts(ctx, client, nodes, known); err != nil {
			return err
		}
		event, open := <-watch.ResultChan()
		if !open {
			return nil
		}
		node, isNode := event.Object.(*corev1.Node)
		if !isNode {
			return nil // an error of the watch; begin again
		}
		if event.Type == "DELETED" {
			delete(nodes, node.Name)
		} else {
			note(nodes, node)
		}
	}
}

func note(nodes map[string]string, node *corev1.Node) {
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			nodes[node.Name] = address.Address
			return
		}
	}
}

// updateNodeHosts writes only when a node came, went or moved.
func updateNodeHosts(ctx context.Context, client kubernetes.Interface, nodes, known map[string]string) error {
	gone := map[string]string{}
	changed := false
	for name, address := range nodes {
		changed = changed || known[name] != address
	}
	for name, address := range known {
		if _, there := nodes[name]; !there {
			gone[name], changed = address, true
		}
	}
	if !changed {
		return nil
	}
	merged := MergeNodeHosts(NodeHosts(ctx, client), nodes, gone)
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"NodeHosts": strings.Join(merged, "\n") + "\n"}})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().ConfigMaps("kube-system").
		Patch(ctx, "coredns", types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: "k3nest-node-hosts"})
	if err != nil {
		return err
	}
	clear(known)
	for name, address := range nodes {
		known[name] = address
	}
	return nil
}

func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}
