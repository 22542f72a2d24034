package server

import (
	"encoding/base64"
	"fmt"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/pki"
)

// docs.k3s.io/cli/secrets-encrypt: --secrets-encryption makes an AES-CBC key and
// a configuration that encrypts Secrets with it.
const encryptionConfig = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aescbc:
      keys:
      - name: aescbckey
        secret: %s
  - identity: {}
`

func encryptionConfigPath(dirs layout.Dirs) string {
	return dirs.Server("cred", "encryption-config.json")
}

func writeEncryptionConfig(dirs layout.Dirs, password string) error {
	key, err := pki.DeriveSecret(password, "secrets encryption")
	if err != nil {
		return fmt.Errorf("derive the key that encrypts Secrets: %w", err)
	}
	content := fmt.Sprintf(encryptionConfig, base64.StdEncoding.EncodeToString(key))
	return layout.Write(encryptionConfigPath(dirs), []byte(content), 0o600)
}
