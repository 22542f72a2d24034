// Package layout names every file and directory that k3s documents, so that
// nobody else spells a path.
package layout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	// docs.k3s.io/installation/configuration
	ConfigFile     = "/etc/rancher/k3s/config.yaml"
	RegistriesFile = "/etc/rancher/k3s/registries.yaml"
	// docs.k3s.io/cluster-access
	KubeconfigFile = "/etc/rancher/k3s/k3s.yaml"
	// docs.k3s.io/architecture, "How agent node registration works"
	NodePasswordFile = "/etc/rancher/node/password"

	DefaultDataDir   = "/var/lib/rancher/k3s"
	ContainerdState  = "/run/k3s/containerd"
	ContainerdSocket = ContainerdState + "/containerd.sock"

	// What follows is this image's own, not k3s's.
	SupervisorSocket = "/run/k3s/supervisor.sock"

	LogDir         = "/var/log/k3nest-node"
	PackagedImages = "/usr/share/k3nest-node/images"
	NarrowedRunc   = "/usr/libexec/k3nest-node/runc-narrowed"
	CNIBinDir      = "/usr/lib/cni"
	PauseImage     = "docker.io/k3nest-offline/pause:1"
)

// Dirs is the data directory (--data-dir) and what lies below it.
type Dirs struct{ Data string }

func (d Dirs) Server(elements ...string) string {
	return filepath.Join(append([]string{d.Data, "server"}, elements...)...)
}

func (d Dirs) Agent(elements ...string) string {
	return filepath.Join(append([]string{d.Data, "agent"}, elements...)...)
}

func (d Dirs) TLS(name string) string        { return d.Server("tls", name) }
func (d Dirs) Credential(name string) string { return d.Server("cred", name+".kubeconfig") }
func (d Dirs) AdminKubeconfig() string       { return d.Credential("admin") }
func (d Dirs) Token() string                 { return d.Server("token") }
func (d Dirs) NodeToken() string             { return d.Server("node-token") }
func (d Dirs) AgentToken() string            { return d.Server("agent-token") }
func (d Dirs) Manifests() string             { return d.Server("manifests") }
func (d Dirs) EtcdData() string              { return d.Server("db", "etcd") }
func (d Dirs) EtcdName() string              { return d.Server("db", "etcd", "name") }
func (d Dirs) EtcdMember() string            { return d.Server("db", "etcd", "member") }
func (d Dirs) EtcdLog() string               { return d.Server("db", "etcd", "member", "wal") }
func (d Dirs) Snapshots() string             { return d.Server("db", "snapshots") }
func (d Dirs) Tombstone() string             { return d.Server("db", "etcd", "tombstone") }
func (d Dirs) ResetFlag() string             { return d.Server("db", "reset-flag") }

// ClusterMark is this image's own: it tells that --cluster-init was given once.
func (d Dirs) ClusterMark() string      { return d.Server("db", "cluster-init") }
func (d Dirs) Images() string           { return d.Agent("images") }
func (d Dirs) ContainerdConfig() string { return d.Agent("etc", "containerd", "config.toml") }
func (d Dirs) ContainerdLog() string    { return d.Agent("containerd", "containerd.log") }
func (d Dirs) RegistryHosts() string    { return d.Agent("etc", "containerd", "certs.d") }
func (d Dirs) CrictlConfig() string     { return d.Agent("etc", "crictl.yaml") }
func (d Dirs) KnownServers() string     { return d.Agent("etc", "k3s-agent-load-balancer.json") }
func (d Dirs) CNIConfig() string        { return d.Agent("etc", "cni", "net.d") }

// Write puts content at path in one step: a reader, or the next start after a
// kill, sees the old file or the new one and never half of it.
func Write(path string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	draft, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	_, writeErr := draft.Write(content)
	if err := errors.Join(writeErr, draft.Chmod(mode), draft.Sync(), draft.Close()); err != nil {
		return err
	}
	return os.Rename(draft.Name(), path)
}

// Link makes path a link to target, whatever path was before.
func Link(target, path string) error {
	if present, err := os.Readlink(path); err == nil && present == target {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}
