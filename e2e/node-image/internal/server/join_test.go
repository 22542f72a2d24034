package server

import (
	"errors"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k3nest.dev/k3nest/e2e/node-image/internal/cluster"
	"k3nest.dev/k3nest/e2e/node-image/internal/options"
)

var joining = etcdMember{Name: "b-0123abcd", NodeIP: "10.0.0.2", Options: &options.Options{NodeName: "b"}}

func member(id uint64, name, address string) *etcdserverpb.Member {
	return &etcdserverpb.Member{ID: id, Name: name, PeerURLs: []string{"https://" + address + ":2380"}}
}

func TestInitialClusterNamesMembersThatHaveNotStarted(t *testing.T) {
	got := joining.clusterOf([]*etcdserverpb.Member{
		member(1, "a-01234567", "10.0.0.1"), member(2, "", "10.0.0.2"), member(0xc, "", "10.0.0.3")})

	want := []string{"a-01234567=https://10.0.0.1:2380", "b-0123abcd=https://10.0.0.2:2380", "not-started-c=https://10.0.0.3:2380"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestAMemberIsAddedOnce(t *testing.T) {
	for _, one := range []struct {
		what    string
		members []*etcdserverpb.Member
		known   bool
		misfit  bool
	}{
		{"a stranger", []*etcdserverpb.Member{member(1, "a-01234567", "10.0.0.1")}, false, false},
		{"a longer name", []*etcdserverpb.Member{member(1, "b-b-01234567", "10.0.0.1")}, false, false},
		{"our own attempt", []*etcdserverpb.Member{member(1, "", "10.0.0.2")}, true, false},
		{"our name elsewhere", []*etcdserverpb.Member{member(1, "b-01234567", "10.0.0.9")}, false, true},
		{"our address", []*etcdserverpb.Member{member(1, "a-01234567", "10.0.0.2")}, false, true},
	} {
		known, err := joining.isAmong(one.members)
		if known != one.known || errors.Is(err, errMisfit) != one.misfit {
			t.Errorf("%s: %v, %v", one.what, known, err)
		}
	}
}

func TestServersThatJoinTogetherStartOneAfterTheOther(t *testing.T) {
	for _, one := range []struct {
		what    string
		members []*etcdserverpb.Member
		waits   bool
	}{
		{"alone", []*etcdserverpb.Member{member(1, "a-01234567", "10.0.0.1"), member(5, "", "10.0.0.2")}, false},
		{"second", []*etcdserverpb.Member{member(5, "", "10.0.0.2"), member(4, "", "10.0.0.3")}, true},
		{"the other has started", []*etcdserverpb.Member{member(5, "", "10.0.0.2"), member(4, "c-01234567", "10.0.0.3")}, false},
		{"first", []*etcdserverpb.Member{member(5, "", "10.0.0.2"), member(6, "", "10.0.0.3")}, false},
		{"not added yet", []*etcdserverpb.Member{member(1, "", "10.0.0.3")}, false},
	} {
		if waits := joining.startsBefore(one.members) != nil; waits != one.waits {
			t.Errorf("%s: %v", one.what, waits)
		}
	}
}

func etcdNode(annotations map[string]string, finalizers []string, deleted bool) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b", Annotations: annotations, Finalizers: finalizers}}
	if deleted {
		node.DeletionTimestamp = &metav1.Time{}
	}
	return node
}

func TestMembersLeaveWithTheirNodesOrWhenAsked(t *testing.T) {
	named := map[string]string{cluster.EtcdNameAnnotation: "b-1"}
	asked := map[string]string{cluster.EtcdNameAnnotation: "b-1", cluster.EtcdRemoveAnnotation: "true"}
	twice := map[string]string{cluster.EtcdNameAnnotation: "b-1", cluster.EtcdRemoveAnnotation: "true", cluster.EtcdRemovedAnnotation: "b-1"}
	for _, one := range []struct {
		what    string
		node    *corev1.Node
		leaving bool
	}{
		{"stays", etcdNode(named, []string{cluster.EtcdFinalizer}, false), false},
		{"is deleted", etcdNode(named, []string{"other", cluster.EtcdFinalizer}, true), true},
		{"is deleted and waits for somebody else", etcdNode(named, []string{"other"}, true), false},
		{"is asked to leave", etcdNode(asked, nil, false), true},
		{"was asked and has left", etcdNode(twice, nil, false), false},
	} {
		leaving, patch := departure(one.node)
		if leaving != one.leaving {
			t.Errorf("one that %s: leaving is %v", one.what, leaving)
		}
		if one.what == "is deleted" {
			left := patch["metadata"].(map[string]any)["finalizers"].([]string)
			if !slices.Equal(left, []string{"other"}) {
				t.Errorf("the finalizers left are %q", left)
			}
		}
	}
}
