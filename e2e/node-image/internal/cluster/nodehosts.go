package cluster

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
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

// KeepNodeHosts keeps the list in step with the Nodes until ctx ends. Every
// server does; what is compared is what is there, so that none undoes for long
// what another wrote from an older view.
func KeepNodeHosts(ctx context.Context, client kubernetes.Interface, nodes *Nodes) {
	gone := map[string]string{}
	known := map[string]string{}
	nodes.Follow(ctx, "keep the nodes' names in CoreDNS", func(all []*corev1.Node) error {
		hosts := AddressesByName(all)
		for name, address := range known {
			gone[name] = address
		}
		for name := range hosts {
			delete(gone, name)
		}
		known = hosts
		return updateNodeHosts(ctx, client, hosts, gone)
	})
}

// AddressesByName leaves out Nodes that have told no address yet.
func AddressesByName(nodes []*corev1.Node) map[string]string {
	addresses := map[string]string{}
	for _, node := range nodes {
		if address := InternalIP(node); address != "" {
			addresses[node.Name] = address
		}
	}
	return addresses
}

func updateNodeHosts(ctx context.Context, client kubernetes.Interface, nodes, gone map[string]string) error {
	configMaps := client.CoreV1().ConfigMaps("kube-system")
	found, err := configMaps.Get(ctx, "coredns", metav1.GetOptions{})
	if err != nil {
		return err // at the start of a cluster it is not there yet
	}
	present := lines(found.Data["NodeHosts"])
	merged := MergeNodeHosts(present, nodes, gone)
	if slices.Equal(present, merged) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		// Somebody who wrote in between is not overwritten: it is done again.
		"metadata": map[string]string{"resourceVersion": found.ResourceVersion},
		"data":     map[string]string{"NodeHosts": strings.Join(merged, "\n") + "\n"},
	})
	if err != nil {
		return err
	}
	_, err = configMaps.Patch(ctx, "coredns", types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: "k3nest-node-hosts"})
	return err
}

func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}
