package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// prepareHost makes a privileged container fit to run containers in.
func prepareHost() error {
	// Volumes that Pods mount with propagation need it; an entrypoint may have
	// done it already, which does no harm.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make the mounts of the container shared: %w; run it with --privileged", err)
	}
	if err := evacuateRootCgroup(); err != nil {
		return fmt.Errorf("move our processes out of the root cgroup: %w", err)
	}
	for file, value := range map[string]string{
		"/proc/sys/net/ipv4/ip_forward":                 "1",
		"/proc/sys/net/ipv4/conf/all/forwarding":        "1",
		"/proc/sys/net/ipv6/conf/all/forwarding":        "1",
		"/proc/sys/net/bridge/bridge-nf-call-iptables":  "1",
		"/proc/sys/net/bridge/bridge-nf-call-ip6tables": "1",
	} {
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			logging.Debugf("Set %s to %s: %v", file, value, err)
		}
	}
	return nil
}

// evacuateRootCgroup is what k3s does as PID 1 on cgroup v2: controllers can be
// handed down only by a cgroup that holds no processes itself.
func evacuateRootCgroup() error {
	const root = "/sys/fs/cgroup"
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if errors.Is(err, os.ErrNotExist) || os.Getpid() != 1 {
		return nil // cgroup v1, or somebody else is in charge of the root
	}
	if err != nil {
		return err
	}
	processes, err := os.ReadFile(filepath.Join(root, "cgroup.procs"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(root, "init"), 0o755); err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(processes)) {
		// One may have ended since; those that stay show at the next step.
		os.WriteFile(filepath.Join(root, "init", "cgroup.procs"), []byte(pid), 0o644)
	}
	enable := "+" + strings.Join(strings.Fields(string(controllers)), " +")
	return os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte(enable), 0o644)
}

// hasCapability looks at the bounding set: what is not in it, no container of
// ours can be given.
func hasCapability(capability uint) bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return true
	}
	for _, line := range strings.Split(string(status), "\n") {
		if hex, found := strings.CutPrefix(line, "CapBnd:"); found {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err != nil || set&(1<<capability) != 0
		}
	}
	return true
}
