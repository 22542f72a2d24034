package agent

import (
	"fmt"
	"os"
	"strings"

	"k3nest.dev/k3nest/e2e/node-image/internal/arguments"
	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/process"
)

// Thresholds and periods are k3s's. failCgroupV1 is not set: since 1.35 the
// kubelet refuses cgroup v1, and so does k3s, until the user gives
// --kubelet-arg=fail-cgroupv1=false.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true, cacheTTL: 2m0s}
  x509: {clientCAFile: %[1]q}
authorization:
  mode: Webhook
  webhook: {cacheAuthorizedTTL: 5m0s, cacheUnauthorizedTTL: 30s}
cgroupDriver: %[2]s
clusterDNS: [%[3]q]
clusterDomain: %[4]q
containerRuntimeEndpoint: unix://%[5]s
evictionHard: {imagefs.available: 5%%, nodefs.available: 5%%}
evictionMinimumReclaim: {imagefs.available: 10%%, nodefs.available: 10%%}
failSwapOn: false
healthzBindAddress: 127.0.0.1
protectKernelDefaults: %[6]t
providerID: %[7]q
resolvConf: %[8]q
serializeImagePulls: false
staticPodPath: %[9]q
tlsCertFile: %[10]q
tlsPrivateKeyFile: %[11]q
`

func (a *Agent) startKubelet() error {
	resolvConf, err := a.resolvConf()
	if err != nil {
		return err
	}
	staticPods := a.Dirs.Agent("pod-manifests")
	if err := os.MkdirAll(staticPods, 0o700); err != nil {
		return fmt.Errorf("make the directory of static Pods: %w", err)
	}
	driver := "cgroupfs"
	if systemdCgroups() {
		driver = "systemd"
	}
	o := a.Options
	file := a.Dirs.Agent("etc", "kubelet.yaml")
	content := fmt.Sprintf(kubeletConfig, a.Dirs.Agent("client-ca.crt"), driver, o.ClusterDNS[0], o.ClusterDomain,
		layout.ContainerdSocket, o.ProtectKernelDefaults, "k3s://"+o.NodeName, resolvConf, staticPods,
		a.Dirs.Agent("serving-kubelet.crt"), a.Dirs.Agent("serving-kubelet.key"))
	if err := layout.Write(file, []byte(content), 0o600); err != nil {
		return fmt.Errorf("write the kubelet's configuration: %w", err)
	}
	args := arguments.Merge(a.kubeletFlags(file), o.KubeletArgs)
	logging.Infof("Running kubelet %s", strings.Join(args, " "))
	_, err = a.Group.Component(process.UsesAPI, "kubelet", args)
	return err
}

func (a *Agent) kubeletFlags(file string) []string {
	// The kubelet itself applies labels and taints at registration only, which
	// is also what k3s documents.
	labels := append([]string{"node.kubernetes.io/instance-type=k3s"}, a.Options.NodeLabels...)
	flags := []string{
		"--config=" + file,
		"--hostname-override=" + a.Options.NodeName,
		"--kubeconfig=" + a.Dirs.Agent("kubelet.kubeconfig"),
		"--node-ip=" + a.NodeIP,
		"--node-labels=" + strings.Join(labels, ","),
	}
	if len(a.Options.NodeTaints) > 0 {
		flags = append(flags, "--register-with-taints="+strings.Join(a.Options.NodeTaints, ","))
	}
	if a.Options.Verbosity > 0 {
		flags = append(flags, fmt.Sprintf("--v=%d", a.Options.Verbosity))
	}
	return flags
}

func (a *Agent) startKubeProxy() error {
	flags := []string{
		"--bind-address=0.0.0.0",
		"--conntrack-max-per-core=0", // a host-wide limit that a container may not set
		"--conntrack-tcp-timeout-close-wait=0s",
		"--conntrack-tcp-timeout-established=0s",
		"--healthz-bind-address=127.0.0.1",
		"--hostname-override=" + a.Options.NodeName,
		"--kubeconfig=" + a.Dirs.Agent("kubeproxy.kubeconfig"),
		"--proxy-mode=iptables",
		"--cluster-cidr=" + strings.Join(a.Options.ClusterCIDR, ","),
	}
	args := arguments.Merge(flags, a.Options.KubeProxyArgs)
	logging.Infof("Running kube-proxy %s", strings.Join(args, " "))
	_, err := a.Group.Component(process.UsesAPI, "kube-proxy", args)
	return err
}
