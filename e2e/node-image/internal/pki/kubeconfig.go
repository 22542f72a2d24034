package pki

import (
	"encoding/base64"
	"fmt"
	"os"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
)

const kubeconfig = `apiVersion: v1
kind: Config
clusters:
- cluster:
    %s: %s
    server: %s
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    %s: %s
    %s: %s
`

// WriteComponentKubeconfig names files, so that a renewed certificate counts.
func WriteComponentKubeconfig(path, server, authority, base string) error {
	content := fmt.Sprintf(kubeconfig,
		"certificate-authority", authority, server,
		"client-certificate", base+".crt", "client-key", base+".key")
	return layout.Write(path, []byte(content), 0o600)
}

// WriteUserKubeconfig holds everything inline, so that the file can be copied
// away (docs.k3s.io/cluster-access).
func WriteUserKubeconfig(path, server, authority, base string, mode os.FileMode) error {
	var data [3]string
	for i, file := range []string{authority, base + ".crt", base + ".key"} {
		content, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read what the kubeconfig %s is to hold: %w", path, err)
		}
		data[i] = base64.StdEncoding.EncodeToString(content)
	}
	content := fmt.Sprintf(kubeconfig,
		"certificate-authority-data", data[0], server,
		"client-certificate-data", data[1], "client-key-data", data[2])
	return layout.Write(path, []byte(content), mode)
}
