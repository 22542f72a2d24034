// Package cluster is what a server does in the cluster through its API: it
// describes its Node, keeps CoreDNS's list of nodes, and clears up after the
// life before a restart.
package cluster

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// Connect makes a client of the kubeconfig; it does not call the API yet.
func Connect(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %s: %w", kubeconfig, err)
	}
	config.Timeout = 30 * time.Second
	return clientOf(config)
}

// ConnectToWatch makes one whose requests may take for ever.
func ConnectToWatch(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %s: %w", kubeconfig, err)
	}
	return clientOf(config)
}

func clientOf(config *rest.Config) (*kubernetes.Clientset, error) {
	config.QPS, config.Burst = -1, -1
	config.WarningHandler = rest.NoWarnings{}
	return kubernetes.NewForConfig(config)
}

// WaitFor polls a path of the API until it answers 200.
func WaitFor(ctx context.Context, client *kubernetes.Clientset, path string) error {
	var last error
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, last = client.RESTClient().Get().AbsPath(path).DoRaw(attempt)
		cancel()
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API did not answer %s: %w", path, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Retry repeats what may fail while the cluster settles, and says so once. It
// tells whether it came to succeed before ctx ended.
func Retry(ctx context.Context, what string, attempt func() error) bool {
	for failures := 0; ; failures++ {
		err := attempt()
		if err == nil {
			return true
		}
		if failures == 20 {
			logging.Warnf("%s: still failing: %v", what, err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(250 * time.Millisecond):
		}
	}
}
