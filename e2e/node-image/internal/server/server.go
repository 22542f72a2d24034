// Package server is `k3s server`: it brings the components of a server node up
// in order, keeps them, and takes them down.
//
// The order is etcd and containerd side by side, then kube-apiserver, then
// everything that speaks to it. Each component is a child process with a log of
// its own below /var/log/k3nest-node.
package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"

	"k3nest.dev/k3nest/e2e/node-image/internal/agent"
	"k3nest.dev/k3nest/e2e/node-image/internal/cluster"
	"k3nest.dev/k3nest/e2e/node-image/internal/join"
	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/manifests"
	"k3nest.dev/k3nest/e2e/node-image/internal/options"
	"k3nest.dev/k3nest/e2e/node-image/internal/pki"
	"k3nest.dev/k3nest/e2e/node-image/internal/process"
)

// startLimit bounds how long a start may take before it counts as failed, on a
// host that is doing ten other things.
const startLimit = 5 * time.Minute

// node is a server while it runs.
type node struct {
	options *options.Options
	dirs    layout.Dirs
	ip      string
	group   *process.Group
	agent   *agent.Agent
	etcd    etcdMember
	managed bool // the datastore is etcd for k3s too
	reset   bool // the run before was a reset
	client  *kubernetes.Clientset
	nodes   *cluster.Nodes // from when the API answers

	authorities *pki.Cluster
	ready       chan struct{} // closed when the API is
}

// Run returns nil after a signal, and an error when a component died.
func Run(o *options.Options) error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()

	logging.SilenceClients()

	if o.ClusterReset && o.Server != "" {
		return errors.New("cannot perform cluster-reset while server URL is set - remove server from configuration before resetting")
	}
	n := &node{options: o, dirs: o.Dirs(), group: process.NewGroup(layout.LogDir), ready: make(chan struct{})}
	if err := n.prepare(); err != nil {
		return err
	}
	if o.ClusterReset {
		return n.resetCluster(stop)
	}
	var err error
	if n.reset, err = endReset(n.dirs); err != nil {
		return err
	}
	ctx, cancelAll := context.WithCancel(stop)
	defer cancelAll()
	go func() {
		limited, done := context.WithTimeout(ctx, startLimit)
		defer done()
		if err := n.start(limited, ctx); err != nil && stop.Err() == nil {
			n.group.Fail(err)
		}
	}()

	var failure error
	select {
	case failure = <-n.group.Failed():
	case <-stop.Done():
		logging.Infof("Received a signal to stop, shutting down")
	}
	cancelAll()
	n.group.Stop()
	if failure != nil {
		bury(n.dirs)
	}
	return failure
}

// prepare writes every file that the components read.
func (n *node) prepare() (err error) {
	o := n.options
	if n.ip, err = agent.NodeIP(o.NodeIP); err != nil {
		return err
	}
	if o.Server != "" && o.Token == "" {
		return errors.New("--token is required")
	}
	if n.authorities, err = pki.OpenCluster(n.dirs, o.Token); err != nil {
		return err
	}
	authorities := n.authorities
	if err := authorities.WriteAgentToken(o.AgentToken); err != nil {
		return fmt.Errorf("write the agent token: %w", err)
	}
	now := time.Now()
	if err := authorities.IssueServer(o.NodeName, n.ip, n.servingNames(), now); err != nil {
		return err
	}
	api := fmt.Sprintf("https://127.0.0.1:%d", o.HTTPSPort)
	if err := authorities.WriteKubeconfigs(api); err != nil {
		return fmt.Errorf("write the kubeconfigs of the components: %w", err)
	}
	mode, err := fileMode(o.WriteKubeconfigMode)
	if err != nil {
		return err
	}
	if err := authorities.PublishKubeconfig(o.WriteKubeconfig, api, mode); err != nil {
		return fmt.Errorf("write the kubeconfig %s: %w", o.WriteKubeconfig, err)
	}
	if o.SecretsEncryption {
		if err := writeEncryptionConfig(n.dirs, authorities.Password); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(n.dirs.Manifests(), 0o700); err != nil {
		return fmt.Errorf("make the manifests directory: %w", err)
	}
	if n.etcd, err = newEtcdMember(o, n.ip); err != nil {
		return err
	}
	if n.managed, err = settleManaged(o); err != nil {
		return err
	}
	if n.client, err = cluster.Connect(n.dirs.Credential("supervisor")); err != nil {
		return err
	}
	if o.DisableAgent {
		return nil
	}
	n.agent = &agent.Agent{Options: o, Dirs: n.dirs, Group: n.group, NodeIP: n.ip, Server: api}
	if err := authorities.IssueAgent(o.NodeName, n.ip, now); err != nil {
		return err
	}
	return n.agent.Prepare()
}

// servingNames are those that k3s serves, and exactly the --tls-san ones besides
// (docs.k3s.io/cli/server, --tls-san-security).
func (n *node) servingNames() []string {
	o := n.options
	service := "kubernetes.default.svc"
	names := []string{"kubernetes", "kubernetes.default", service, service + "." + o.ClusterDomain,
		"localhost", "127.0.0.1", "::1", o.NodeName, n.ip, o.FirstServiceIP(), o.AdvertiseAddress}
	return append(append(names, o.NodeExternalIP...), o.TLSSANs...)
}

// start brings the components up; starting limits how long each may take to
// answer, running is for what lives as long as the node.
func (n *node) start(starting, running context.Context) error {
	runtime := make(chan error, 1)
	go func() {
		if n.agent == nil {
			runtime <- nil
			return
		}
		runtime <- n.agent.StartContainerd(starting)
	}()
	if err := n.desk().Serve(running, layout.SupervisorSocket); err != nil {
		return err
	}
	if err := n.startStore(starting); err != nil {
		return err
	}
	if err := n.startAPI(starting); err != nil {
		return err
	}
	if err := n.startControllers(); err != nil {
		return err
	}
	watching, err := cluster.ConnectToWatch(n.dirs.Credential("supervisor"))
	if err != nil {
		return err
	}
	n.nodes = cluster.WatchNodes(running, watching)
	n.follow(running)
	if err := <-runtime; err != nil || n.agent == nil {
		return err
	}
	return n.agent.RunNode(running, n.nodes)
}

// desk is where others join the cluster of this server.
func (n *node) desk() *join.Desk {
	return &join.Desk{
		Authorities: n.authorities,
		Settings:    join.SettingsOf(n.options),
		Managed:     n.managed,
		Client:      n.client,
		Ready:       n.ready,
		Members:     n.etcd.clientURLs,
	}
}

func (n *node) startAPI(ctx context.Context) error {
	advertise := n.options.AdvertiseAddress
	if advertise == "" {
		advertise = n.ip
	}
	args := apiServerArgs(n.options, advertise)
	logging.Infof("Running kube-apiserver %s", strings.Join(args, " "))
	if _, err := n.group.Component(process.API, "kube-apiserver", args); err != nil {
		return err
	}
	if err := cluster.WaitFor(ctx, n.client, "/readyz"); err != nil {
		return err
	}
	close(n.ready)
	logging.Infof("Kube API server is now running")
	return nil
}

func (n *node) startControllers() error {
	hostname, _ := os.Hostname()
	cluster.ReleaseOwnLeases(context.Background(), n.client, hostname)

	args := controllerManagerArgs(n.options)
	logging.Infof("Running kube-controller-manager %s", strings.Join(args, " "))
	if _, err := n.group.Component(process.UsesAPI, "kube-controller-manager", args); err != nil {
		return err
	}
	if !n.options.DisableScheduler {
		args = schedulerArgs(n.options)
		logging.Infof("Running kube-scheduler %s", strings.Join(args, " "))
		if _, err := n.group.Component(process.UsesAPI, "kube-scheduler", args); err != nil {
			return err
		}
	}
	logging.Infof("k3s is up and running")
	return nil
}

// follow starts what a server does in its cluster for as long as it runs.
func (n *node) follow(ctx context.Context) {
	go func() {
		cluster.Retry(ctx, "prepare the packaged components", func() error { return n.packagedComponents(ctx) })
		applier := manifests.Applier{Dir: n.dirs.Manifests(), Kubeconfig: n.dirs.AdminKubeconfig(), NodeName: n.options.NodeName}
		applier.Run(ctx)
	}()
	go func() {
		if cluster.Retry(ctx, "publish the address of the cluster's DNS", func() error {
			return cluster.PublishDNS(ctx, n.client, n.options.ClusterDNS[0], n.options.ClusterDomain)
		}) {
			logging.Infof("Cluster dns configmap has been set successfully")
		}
	}()
	if !n.options.Disabled("coredns") {
		go cluster.KeepNodeHosts(ctx, n.client, n.nodes)
	}
	if n.managed {
		go n.scheduleSnapshots(ctx)
		go n.followMembers(ctx)
	}
	if n.agent == nil {
		return
	}
	go cluster.NodePassword{Node: n.options.NodeName, Password: n.agent.Password}.Keep(ctx, n.client, n.reset)
	go func() {
		description := cluster.NodeDescription{
			Name: n.options.NodeName, IP: n.ip, ExternalIP: n.options.NodeExternalIP,
			Args: append([]string{"server"}, n.options.Args...),
		}
		if n.managed {
			description.EtcdName = n.etcd.Name
		}
		if cluster.Retry(ctx, "label the node", func() error { return description.Describe(ctx, n.client) }) {
			logging.Infof("Labels and annotations have been set successfully on node: %s", n.options.NodeName)
		}
	}()
}

// packagedComponents writes coredns.yaml, or takes CoreDNS away.
func (n *node) packagedComponents(ctx context.Context) error {
	if n.options.Disabled("coredns") {
		if manifests.RemoveCoreDNS(n.dirs.Manifests()) {
			return cluster.DeleteCoreDNS(ctx, n.client)
		}
		return nil
	}
	nodes := cluster.AddressesByName(n.nodes.All())
	nodes[n.options.NodeName] = n.ip
	hosts := cluster.MergeNodeHosts(cluster.NodeHosts(ctx, n.client), nodes, nil)
	return manifests.CoreDNS{
		ClusterDomain: n.options.ClusterDomain,
		ClusterDNS:    n.options.ClusterDNS[0],
		NodeHosts:     hosts,
	}.Write(n.dirs.Manifests())
}
