// Package worker is `k3s agent`: it joins a cluster and runs a node of it.
package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"k3nest.dev/k3nest/e2e/node-image/internal/agent"
	"k3nest.dev/k3nest/e2e/node-image/internal/cluster"
	"k3nest.dev/k3nest/e2e/node-image/internal/join"
	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/options"
	"k3nest.dev/k3nest/e2e/node-image/internal/process"
)

// worker is an agent while it runs.
type worker struct {
	options *options.Options
	dirs    layout.Dirs
	group   *process.Group
	agent   *agent.Agent
}

// Run returns nil after a signal, and an error when a component died.
func Run(o *options.Options) error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	logging.SilenceClients()

	w := &worker{options: o, dirs: o.Dirs(), group: process.NewGroup(layout.LogDir)}
	ctx, cancelAll := context.WithCancel(stop)
	defer cancelAll()
	go func() {
		if err := w.start(ctx); err != nil && stop.Err() == nil {
			w.group.Fail(err)
		}
	}()
	var failure error
	select {
	case failure = <-w.group.Failed():
	case <-stop.Done():
		logging.Infof("Received a signal to stop, shutting down")
	}
	cancelAll()
	w.group.Stop()
	return failure
}

func (w *worker) start(ctx context.Context) error {
	o := w.options
	ip, err := agent.NodeIP(o.NodeIP)
	if err != nil {
		return err
	}
	balancer, err := newBalancer(o.Server, w.dirs.KnownServers())
	if err != nil {
		return err
	}
	if err := balancer.serve(ctx, o.LBServerPort); err != nil {
		return err
	}
	api := fmt.Sprintf("https://127.0.0.1:%d", o.LBServerPort)
	w.agent = &agent.Agent{Options: o, Dirs: w.dirs, Group: w.group, NodeIP: ip, Server: api}
	if err := w.agent.Prepare(); err != nil {
		return err
	}
	runtime := make(chan error, 1)
	go func() { runtime <- w.agent.StartContainerd(ctx) }()
	if err := w.join(ctx, api); err != nil {
		return err
	}
	if err := <-runtime; err != nil {
		return err
	}
	// The kubelet's own credentials let it see its own Node only.
	watching, err := cluster.ConnectToWatch(w.dirs.Agent("kubeproxy.kubeconfig"))
	if err != nil {
		return err
	}
	go balancer.follow(ctx, watching)
	if err := w.agent.RunNode(ctx, cluster.WatchNodes(ctx, watching)); err != nil {
		return err
	}
	client, err := cluster.Connect(w.dirs.Agent("kubelet.kubeconfig"))
	if err != nil {
		return err
	}
	w.describe(ctx, client)
	return nil
}

// join asks until a server lets this node in, and writes what it sends.
func (w *worker) join(ctx context.Context, api string) error {
	asker := join.Asker{Server: api, Token: w.options.Token}
	self := join.Node{Name: w.options.NodeName, IP: w.agent.NodeIP, Password: w.agent.Password}
	var answer join.AgentAnswer
	err := join.Until(ctx, "Waiting to retrieve agent configuration; server is not ready", func() (err error) {
		answer, err = asker.Agent(ctx, self)
		if errors.Is(err, join.ErrForbidden) { // k3s's own words, which its users search for
			err = fmt.Errorf("Node password rejected, duplicate hostname or contents of '%s' may not match server node-passwd entry, "+
				"try enabling a unique node name with the --with-node-id flag (%w)", layout.NodePasswordFile, err)
		}
		return err
	}, nil)
	if err != nil {
		return err
	}
	answer.Settings.Apply(w.options)
	for name, content := range answer.Files {
		if name != filepath.Base(name) {
			return fmt.Errorf("the server sent a file named %q", name)
		}
		mode := os.FileMode(0o600)
		if strings.HasSuffix(name, ".crt") {
			mode = 0o644
		}
		if err := layout.Write(w.dirs.Agent(name), content, mode); err != nil {
			return fmt.Errorf("write what the server sent: %w", err)
		}
	}
	return nil
}

// describe waits for the kubelet to make the Node, and writes k3s's annotations.
func (w *worker) describe(ctx context.Context, client *kubernetes.Clientset) {
	name := w.options.NodeName
	if cluster.Retry(ctx, "wait for the Node "+name, func() error {
		_, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		return err
	}) {
		logging.Infof("Successfully registered node %s", name)
	}
	description := cluster.NodeDescription{
		Name: name, IP: w.agent.NodeIP, ExternalIP: w.options.NodeExternalIP,
		Args: append([]string{"agent"}, w.options.Args...),
	}
	if cluster.Retry(ctx, "describe the node", func() error { return description.Describe(ctx, client) }) {
		logging.Infof("Annotations and labels have been set successfully on node: %s", name)
	}
}
