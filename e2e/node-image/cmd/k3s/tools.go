package main

import (
	"os"
	"strings"
	"syscall"

	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// The programs that `k3s ctr` and `k3s crictl` become.
const tools = "/bin/aux/"

// runKubectl uses the node's own kubeconfig when the caller names none
// (docs.k3s.io/cli, "k3s kubectl").
func runKubectl(name string, args []string) {
	if os.Getenv("KUBECONFIG") == "" && !names(args, "--kubeconfig") {
		os.Setenv("KUBECONFIG", layout.KubeconfigFile)
	}
	os.Args = append([]string{name}, args...)
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

func runCtr(name string, args []string) {
	setDefault("CONTAINERD_ADDRESS", layout.ContainerdSocket)
	setDefault("CONTAINERD_NAMESPACE", "k8s.io")
	become(tools+"ctr", name, args)
}

func runCrictl(name string, args []string) {
	setDefault("CRI_CONFIG_FILE", layout.Dirs{Data: dataDir()}.CrictlConfig())
	become(tools+"crictl", name, args)
}

func become(program, name string, args []string) {
	err := syscall.Exec(program, append([]string{name}, args...), os.Environ())
	logging.Fatalf("run %s: %v", program, err)
}

func dataDir() string {
	if dir := os.Getenv("K3S_DATA_DIR"); dir != "" {
		return dir
	}
	return layout.DefaultDataDir
}

func setDefault(variable, value string) {
	if os.Getenv(variable) == "" {
		os.Setenv(variable, value)
	}
}

func names(args []string, flag string) bool {
	for _, arg := range args {
		if arg == flag || strings.HasPrefix(arg, flag+"=") {
			return true
		}
	}
	return false
}
