package cluster

import (
	"context"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// ReleaseOwnLeases gives back what the controller manager and the scheduler of
// this node's former life still hold, so that those of this life need not wait
// fifteen seconds for the leases to run out. A holder's name begins with the
// host name, and no two running nodes of a cluster share one.
func ReleaseOwnLeases(ctx context.Context, client kubernetes.Interface, hostname string) {
	leases := client.CoordinationV1().Leases("kube-system")
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		lease, err := leases.Get(ctx, name, metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil || !strings.HasPrefix(*lease.Spec.HolderIdentity, hostname+"_") {
			continue
		}
		*lease.Spec.HolderIdentity = ""
		if _, err := leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
			logging.Debugf("Release the lease %s of the life before: %v", name, err)
		}
	}
}
