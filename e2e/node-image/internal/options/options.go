// Package options is the command line of `k3s server` and `k3s agent`.
//
// The names, shorthands and environment variables are those of
// docs.k3s.io/cli/server and docs.k3s.io/cli/agent. A flag is one of three
// kinds: it has its effect (options.go), it is accepted and does nothing here
// (accepted.go), or it is k3s's but not built here and is refused by name
// (accepted.go). Whatever k3s does not know either is refused as k3s refuses it.
package options

import (
	"fmt"
	"os"
	"strings"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
)

// Options is one parsed command line, config file and environment.
type Options struct {
	Command string   // server or agent
	Args    []string // the files' flags and then the command line's, for the node-args annotation

	Config    string
	DataDir   string
	Debug     bool
	Verbosity int
	Output    string // of etcd-snapshot ls

	BindAddress      string
	HTTPSPort        int
	AdvertiseAddress string
	TLSSANs          []string
	TLSSANSecurity   bool

	ClusterInit             bool
	ClusterReset            bool
	ClusterResetRestorePath string
	Server                  string
	Token, TokenFile        string
	AgentToken              string
	AgentTokenFile          string

	WriteKubeconfig      string
	WriteKubeconfigMode  string
	WriteKubeconfigGroup string

	ClusterCIDR          []string
	ServiceCIDR          []string
	ServiceNodePortRange string
	ClusterDNS           []string
	ClusterDomain        string
	FlannelBackend       string

	EtcdArgs, APIServerArgs, ControllerManagerArgs, SchedulerArgs []string
	KubeletArgs, KubeProxyArgs                                    []string

	EtcdExposeMetrics        bool
	EtcdDisableSnapshots     bool
	EtcdSnapshotName         string
	EtcdSnapshotScheduleCron string
	EtcdSnapshotRetention    int
	EtcdSnapshotDir          string
	EtcdSnapshotCompress     bool

	Disable           []string
	DisableAgent      bool
	DisableKubeProxy  bool
	DisableScheduler  bool
	SecretsEncryption bool

	NodeName                       string
	NodeLabels, NodeTaints         []string
	NodeIP, NodeExternalIP         []string
	ResolvConf                     string
	Snapshotter                    string
	PauseImage                     string
	PrivateRegistry                string
	LBServerPort                   int
	DisableDefaultRegistryEndpoint bool
	ProtectKernelDefaults          bool
}

// Dirs is where this node keeps its data.
func (o *Options) Dirs() layout.Dirs { return layout.Dirs{Data: o.DataDir} }

// Disabled tells whether a packaged component was named by --disable.
func (o *Options) Disabled(component string) bool {
	for _, name := range o.Disable {
		if name == component {
			return true
		}
	}
	return false
}

// bind names every flag that has its effect in this image.
func (o *Options) bind(f *flags) {
	server := o.Command == "server"

	f.text(&o.Config, "config,c", "K3S_CONFIG_FILE", layout.ConfigFile)
	f.text(&o.DataDir, "data-dir,d", "K3S_DATA_DIR", layout.DefaultDataDir)
	f.boolean(&o.Debug, "debug", "K3S_DEBUG", false)
	f.number(&o.Verbosity, "v", 0)
	f.text(&o.Server, "server,s", "K3S_URL", "")
	f.text(&o.Token, "token,t", "K3S_TOKEN", "")
	f.text(&o.TokenFile, "token-file", "K3S_TOKEN_FILE", "")

	f.text(&o.NodeName, "node-name", "K3S_NODE_NAME", "")
	f.list(&o.NodeLabels, "node-label", whole)
	f.list(&o.NodeTaints, "node-taint", whole)
	f.list(&o.NodeIP, "node-ip,i", commas)
	f.list(&o.NodeExternalIP, "node-external-ip", commas)
	f.text(&o.ResolvConf, "resolv-conf", "K3S_RESOLV_CONF", "")
	f.text(&o.Snapshotter, "snapshotter", "", "overlayfs")
	f.text(&o.PauseImage, "pause-image", "", layout.PauseImage)
	f.text(&o.PrivateRegistry, "private-registry", "", layout.RegistriesFile)
	f.number(&o.LBServerPort, "lb-server-port", 6444)
	f.boolean(&o.DisableDefaultRegistryEndpoint, "disable-default-registry-endpoint", "", false)
	f.boolean(&o.ProtectKernelDefaults, "protect-kernel-defaults", "", false)
	f.list(&o.KubeletArgs, "kubelet-arg", whole)
	f.list(&o.KubeProxyArgs, "kube-proxy-arg", whole)
	if !server {
		return
	}

	f.text(&o.BindAddress, "bind-address", "", "0.0.0.0")
	f.number(&o.HTTPSPort, "https-listen-port", 6443)
	f.text(&o.AdvertiseAddress, "advertise-address", "", "")
	f.list(&o.TLSSANs, "tls-san", commas)
	f.boolean(&o.TLSSANSecurity, "tls-san-security", "", true)

	f.boolean(&o.ClusterInit, "cluster-init", "K3S_CLUSTER_INIT", false)
	f.boolean(&o.ClusterReset, "cluster-reset", "K3S_CLUSTER_RESET", false)
	f.text(&o.ClusterResetRestorePath, "cluster-reset-restore-path", "", "")
	f.text(&o.AgentToken, "agent-token", "K3S_AGENT_TOKEN", "")
	f.text(&o.AgentTokenFile, "agent-token-file", "K3S_AGENT_TOKEN_FILE", "")

	f.text(&o.WriteKubeconfig, "write-kubeconfig,o", "K3S_KUBECONFIG_OUTPUT", "")
	f.text(&o.WriteKubeconfigMode, "write-kubeconfig-mode", "K3S_KUBECONFIG_MODE", "0600")
	f.text(&o.WriteKubeconfigGroup, "write-kubeconfig-group", "K3S_KUBECONFIG_GROUP", "")

	f.list(&o.ClusterCIDR, "cluster-cidr", commas)
	f.list(&o.ServiceCIDR, "service-cidr", commas)
	f.text(&o.ServiceNodePortRange, "service-node-port-range", "", "30000-32767")
	f.list(&o.ClusterDNS, "cluster-dns", commas)
	f.text(&o.ClusterDomain, "cluster-domain", "", "cluster.local")
	f.text(&o.FlannelBackend, "flannel-backend", "", "vxlan")

	f.list(&o.EtcdArgs, "etcd-arg", whole)
	f.list(&o.APIServerArgs, "kube-apiserver-arg", whole)
	f.list(&o.ControllerManagerArgs, "kube-controller-manager-arg,kube-controller-arg", whole)
	f.list(&o.SchedulerArgs, "kube-scheduler-arg", whole)

	f.boolean(&o.EtcdExposeMetrics, "etcd-expose-metrics", "", false)
	f.boolean(&o.EtcdDisableSnapshots, "etcd-disable-snapshots", "", false)
	f.text(&o.EtcdSnapshotName, "etcd-snapshot-name", "", "etcd-snapshot")
	f.text(&o.EtcdSnapshotScheduleCron, "etcd-snapshot-schedule-cron", "", "0 */12 * * *")
	f.number(&o.EtcdSnapshotRetention, "etcd-snapshot-retention", 5)
	f.text(&o.EtcdSnapshotDir, "etcd-snapshot-dir", "", "")
	f.boolean(&o.EtcdSnapshotCompress, "etcd-snapshot-compress", "", false)

	f.list(&o.Disable, "disable", commas)
	f.boolean(&o.DisableAgent, "disable-agent", "", false)
	f.boolean(&o.DisableKubeProxy, "disable-kube-proxy", "", false)
	f.boolean(&o.DisableScheduler, "disable-scheduler", "", false)
	f.boolean(&o.SecretsEncryption, "secrets-encryption", "", false)
}

// complete reads the token files and fills what k3s fills by default.
func (o *Options) complete() error {
	var err error
	if o.Token, err = tokenFrom(o.Token, o.TokenFile, "token-file"); err != nil {
		return err
	}
	if o.AgentToken, err = tokenFrom(o.AgentToken, o.AgentTokenFile, "agent-token-file"); err != nil {
		return err
	}
	if o.NodeName == "" {
		if o.NodeName, err = os.Hostname(); err != nil {
			return fmt.Errorf("read the host name to name the node: %w; give --node-name", err)
		}
	}
	o.NodeName = strings.ToLower(o.NodeName)
	if o.EtcdSnapshotDir == "" {
		o.EtcdSnapshotDir = o.Dirs().Snapshots()
	}
	if o.Command != "server" {
		return nil
	}
	if o.WriteKubeconfig == "" {
		o.WriteKubeconfig = layout.KubeconfigFile
	}
	if o.ClusterResetRestorePath != "" && !o.ClusterReset {
		return fmt.Errorf("invalid flag use; --cluster-reset required with --cluster-reset-restore-path")
	}
	return o.checkNetwork()
}

// tokenFrom prefers the token itself to the file, as k3s does.
func tokenFrom(token, file, flag string) (string, error) {
	if token != "" || file == "" {
		return token, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the token that --%s names: %w", flag, err)
	}
	token = strings.TrimSpace(string(content))
	if token == "" {
		return "", fmt.Errorf("the token file %s (--%s) is empty: write the cluster's token into it", file, flag)
	}
	return token, nil
}
