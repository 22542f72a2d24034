package agent

import (
	"net/netip"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func nodeWith(name, podCIDR, address string) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: podCIDR}}
	if address != "" {
		node.Status.Addresses = []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: address}}
	}
	return node
}

func TestRoutesLeadToOtherNodesThatHaveARangeAndAnAddress(t *testing.T) {
	got := wantedRoutes([]*corev1.Node{
		nodeWith("self", "10.42.0.0/24", "10.0.0.1"),
		nodeWith("other", "10.42.1.0/24", "10.0.0.2"),
		nodeWith("without-range", "", "10.0.0.3"),
		nodeWith("without-address", "10.42.3.0/24", ""),
		nodeWith("mixed-families", "10.42.4.0/24", "fd00::4"),
	}, "self")

	want := map[netip.Prefix]netip.Addr{netip.MustParsePrefix("10.42.1.0/24"): netip.MustParseAddr("10.0.0.2")}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
