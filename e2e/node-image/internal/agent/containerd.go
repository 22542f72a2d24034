package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/process"
)

// %[n]s: 1 root, 2 socket and state, 3 drop-ins, 4 snapshotter, 5 pause image,
// 6 certs.d, 7 CNI programs, 8 CNI configuration, 9 runc, 10 without SYS_RESOURCE,
// 11 systemd cgroups.
const containerdConfig = `# Written at every start; see config-v3.toml.d for your own (docs.k3s.io/advanced).
version = 3
root = %[1]q
state = %[2]q
imports = [%[3]q]

[grpc]
  address = "%[2]s/containerd.sock"

[plugins.'io.containerd.internal.v1.opt']
  path = "%[1]s/opt"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = %[4]q
  disable_snapshot_annotations = true
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = %[5]q
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = %[6]q

[plugins.'io.containerd.cri.v1.runtime']
  enable_selinux = false
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  disable_apparmor = true
  restrict_oom_score_adj = %[10]t
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [%[7]q]
    conf_dir = %[8]q
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = %[9]q
      SystemdCgroup = %[11]t
`

func (a *Agent) writeContainerdConfig() error {
	// A host that withholds CAP_SYS_RESOURCE cannot give it to privileged Pods
	// either, and refuses lower oom scores: then, and only then, runc is called
	// through a program that takes that one capability out of what it is asked for.
	runc, withheld := "/usr/sbin/runc", !hasCapability(unix.CAP_SYS_RESOURCE)
	if withheld {
		runc = layout.NarrowedRunc
		logging.Infof("CAP_SYS_RESOURCE is withheld from this container: Pods run without it")
	}
	d := a.Dirs
	dropIns := d.Agent("etc", "containerd", "config-v3.toml.d")
	config := fmt.Sprintf(containerdConfig, d.Agent("containerd"), layout.ContainerdState,
		dropIns+"/*.toml", a.Options.Snapshotter, a.Options.PauseImage, d.RegistryHosts(),
		layout.CNIBinDir, d.CNIConfig(), runc, withheld, systemdCgroups())
	for _, dir := range []string{dropIns, d.CNIConfig(), d.Images(), d.RegistryHosts()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a directory for containerd: %w", err)
		}
	}
	if err := layout.Link(filepath.Join(layout.LogDir, "containerd.log"), d.ContainerdLog()); err != nil {
		return fmt.Errorf("link containerd's log to its documented place: %w", err)
	}
	if err := writeRegistryHosts(a.Options.PrivateRegistry, d.RegistryHosts(), a.Options.DisableDefaultRegistryEndpoint); err != nil {
		return err
	}
	crictl := fmt.Sprintf("runtime-endpoint: unix://%[1]s\nimage-endpoint: unix://%[1]s\n", layout.ContainerdSocket)
	if err := layout.Write(d.CrictlConfig(), []byte(crictl), 0o644); err != nil {
		return err
	}
	return layout.Write(d.ContainerdConfig(), []byte(config), 0o600)
}

// systemdCgroups: k3s takes cgroupfs unless systemd started it, which it tells
// by INVOCATION_ID.
func systemdCgroups() bool { return os.Getenv("INVOCATION_ID") != "" }

// StartContainerd returns when containerd answers and has its images.
func (a *Agent) StartContainerd(ctx context.Context) error {
	logging.Infof("Running containerd -c %s", a.Dirs.ContainerdConfig())
	_, err := a.Group.Program(process.Runtime, "containerd",
		[]string{"/bin/containerd", "--config", a.Dirs.ContainerdConfig(), "--log-level", "warn"})
	if err != nil {
		return err
	}
	for {
		connection, err := net.Dial("unix", layout.ContainerdSocket)
		if err == nil {
			connection.Close()
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd did not open %s: %w", layout.ContainerdSocket, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
	logging.Infof("Containerd is now running")
	return a.importImages()
}

// importImages loads what the image brings along and what the user put into
// agent/images (docs.k3s.io/installation/airgap). A broken file of the user is
// no reason not to start.
func (a *Agent) importImages() error {
	packaged, err := archives(layout.PackagedImages)
	if err != nil {
		return err
	}
	present, err := process.Output("ctr", ctr("image", "ls", "-q"), nil)
	if err != nil {
		return fmt.Errorf("list the images that containerd has: %w", err)
	}
	for _, archive := range packaged {
		name := "docker.io/k3nest-offline/" + strings.Replace(strings.TrimSuffix(filepath.Base(archive), ".tar"), "_", ":", 1)
		if strings.Contains(present+"\n", name+"\n") {
			continue
		}
		// Unpacked when a container is made of it: CoreDNS runs on one node only.
		if err := importArchive(archive, "--no-unpack"); err != nil {
			return fmt.Errorf("import a packaged image: %w", err)
		}
	}
	users, err := archives(a.Dirs.Images())
	if err != nil {
		return err
	}
	for _, archive := range users {
		began := time.Now()
		if err := importArchive(archive); err != nil {
			logging.Errorf("Failed to import the images of %s: %v", archive, err)
			continue
		}
		logging.Infof("Imported images from %s in %s", archive, time.Since(began).Round(time.Millisecond))
	}
	return nil
}

func archives(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for image archives: %w", err)
	}
	var found []string
	for _, entry := range entries {
		for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.lz4"} {
			if strings.HasSuffix(entry.Name(), suffix) {
				found = append(found, filepath.Join(dir, entry.Name()))
				break
			}
		}
	}
	sort.Strings(found)
	return found, nil
}

func importArchive(archive string, options ...string) error {
	args := append([]string{"image", "import", "--label", "io.cri-containerd.pinned=pinned"}, options...)
	_, err := process.Output("ctr", ctr(append(args, archive)...), nil)
	return err
}

func ctr(args ...string) []string {
	return append([]string{"/bin/aux/ctr", "--address", layout.ContainerdSocket, "--namespace", "k8s.io"}, args...)
}
