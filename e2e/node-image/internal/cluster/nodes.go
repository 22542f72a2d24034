package cluster

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

const (
	// Somebody may undo by hand what was done for the Nodes; it is looked after
	// this often though no Node changed.
	lookAgain = 15 * time.Second
	retryNow  = time.Second
)

// Nodes is one watch of all Nodes for everything that follows them.
type Nodes struct {
	informer  cache.SharedInformer
	mu        sync.Mutex
	followers []chan struct{}
}

// WatchNodes begins to watch until ctx ends. The client must not limit how long a
// request takes (ConnectToWatch).
func WatchNodes(ctx context.Context, client *kubernetes.Clientset) *Nodes {
	source := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", "", fields.Everything())
	n := &Nodes{informer: cache.NewSharedInformer(source, &corev1.Node{}, 0)}
	n.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { n.wake() },
		UpdateFunc: func(any, any) { n.wake() },
		DeleteFunc: func(any) { n.wake() },
	})
	go n.informer.RunWithContext(ctx)
	return n
}

func (n *Nodes) wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, follower := range n.followers {
		select {
		case follower <- struct{}{}:
		default: // it is awake and has yet to look
		}
	}
}

// All are the Nodes as they are known now, by name.
func (n *Nodes) All() []*corev1.Node {
	var nodes []*corev1.Node
	for _, object := range n.informer.GetStore().List() {
		nodes = append(nodes, object.(*corev1.Node))
	}
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes
}

// Follow lets act look at the Nodes whenever one changed, until ctx ends. It
// must not change them, and is called again soon after it failed.
func (n *Nodes) Follow(ctx context.Context, what string, act func([]*corev1.Node) error) {
	changed := make(chan struct{}, 1)
	n.mu.Lock()
	n.followers = append(n.followers, changed)
	n.mu.Unlock()
	if !cache.WaitForCacheSync(ctx.Done(), n.informer.HasSynced) {
		return
	}
	for failures := 0; ctx.Err() == nil; {
		next := lookAgain
		if err := act(n.All()); err != nil {
			if failures++; failures%60 == 30 && ctx.Err() == nil {
				logging.Warnf("%s: still failing: %v", what, err)
			}
			next = retryNow
		} else {
			failures = 0
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(next):
		}
	}
}

// InternalIP is the address that other nodes reach a Node by; empty until its
// kubelet has told.
func InternalIP(node *corev1.Node) string {
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return address.Address
		}
	}
	return ""
}
