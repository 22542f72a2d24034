package cluster

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// PublishDNS writes where the cluster's DNS is, as k3s does, for whoever asks.
func PublishDNS(ctx context.Context, client kubernetes.Interface, address, domain string) error {
	configMaps := client.CoreV1().ConfigMaps("kube-system")
	wanted := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "cluster-dns", Namespace: "kube-system"},
		Data:       map[string]string{"clusterDNS": address, "clusterDomain": domain},
	}
	_, err := configMaps.Create(ctx, wanted, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = configMaps.Update(ctx, wanted, metav1.UpdateOptions{})
	}
	return err
}

// DeleteCoreDNS removes what the packaged manifest had made, which is what
// --disable means for a cluster that already has the component.
func DeleteCoreDNS(ctx context.Context, client kubernetes.Interface) error {
	const namespace, name = "kube-system", "coredns"
	none := metav1.DeleteOptions{}
	return errors.Join(
		unlessGone(client.AppsV1().Deployments(namespace).Delete(ctx, name, none)),
		unlessGone(client.CoreV1().Services(namespace).Delete(ctx, "kube-dns", none)),
		unlessGone(client.CoreV1().ConfigMaps(namespace).Delete(ctx, name, none)),
		unlessGone(client.CoreV1().ServiceAccounts(namespace).Delete(ctx, name, none)),
		unlessGone(client.RbacV1().ClusterRoleBindings().Delete(ctx, "system:coredns", none)),
		unlessGone(client.RbacV1().ClusterRoles().Delete(ctx, "system:coredns", none)),
	)
}

func unlessGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
