package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"k3nest.dev/k3nest/e2e/node-image/internal/cluster"
	"k3nest.dev/k3nest/e2e/node-image/internal/etcd"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// followMembers removes the etcd member of a server whose Node is deleted, or
// that is asked to leave by k3s's annotation. Each server does it for all others;
// who comes second finds it done.
func (n *node) followMembers(ctx context.Context) {
	n.nodes.Follow(ctx, "keep etcd's members in step with the Nodes", func(nodes []*corev1.Node) error {
		var problems []error
		for _, found := range nodes {
			leaving, patch := departure(found)
			if !leaving {
				continue
			}
			done, err := n.removeMember(ctx, found)
			if err == nil && done {
				err = n.patchNode(ctx, found.Name, patch)
			}
			if err != nil {
				problems = append(problems, fmt.Errorf("the member of the Node %s: %w", found.Name, err))
			}
		}
		return errors.Join(problems...)
	})
}

// departure tells whether a Node's member is to leave, and what is to be written
// on the Node afterwards.
func departure(node *corev1.Node) (leaving bool, patch map[string]any) {
	metadata := map[string]any{"uid": node.UID, "resourceVersion": node.ResourceVersion}
	patch = map[string]any{"metadata": metadata}
	name := node.Annotations[cluster.EtcdNameAnnotation]
	if node.DeletionTimestamp != nil {
		if !slices.Contains(node.Finalizers, cluster.EtcdFinalizer) {
			return false, nil
		}
		metadata["finalizers"] = slices.DeleteFunc(slices.Clone(node.Finalizers),
			func(one string) bool { return one == cluster.EtcdFinalizer })
		return true, patch
	}
	if node.Annotations[cluster.EtcdRemoveAnnotation] != "true" || name == "" ||
		node.Annotations[cluster.EtcdRemovedAnnotation] == name {
		return false, nil
	}
	metadata["annotations"] = map[string]any{
		cluster.EtcdRemovedAnnotation: name,
		cluster.EtcdNameAnnotation:    nil,
		cluster.EtcdAddressAnnotation: nil,
	}
	return true, patch
}

// removeMember is done when etcd has no such member, or no other one: the Node of
// the only server comes back by itself. Nobody removes itself.
func (n *node) removeMember(ctx context.Context, node *corev1.Node) (done bool, err error) {
	client, err := etcd.Client(n.dirs)
	if err != nil {
		return false, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	list, err := client.MemberList(ctx)
	if err != nil {
		return false, err
	}
	name := node.Annotations[cluster.EtcdNameAnnotation]
	for _, member := range list.Members {
		if member.Name != name || len(list.Members) == 1 {
			continue
		}
		if name == n.etcd.Name {
			return false, nil
		}
		logging.Infof("Removing name=%s id=%d address=%v from etcd", member.Name, member.ID, member.PeerURLs)
		if _, err := client.MemberRemove(ctx, member.ID); err != nil && !errors.Is(err, rpctypes.ErrMemberNotFound) {
			return false, err
		}
	}
	return true, nil
}

func (n *node) patchNode(ctx context.Context, name string, patch map[string]any) error {
	content, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = n.client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, content, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or changed meanwhile: the change brings us here again
	}
	return err
}
