package agent

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
)

// registries is registries.yaml (docs.k3s.io/installation/private-registry).
type registries struct {
	Mirrors map[string]struct {
		Endpoints []string          `json:"endpoint"`
		Rewrites  map[string]string `json:"rewrite"`
	} `json:"mirrors"`
	Configs map[string]registryConfig `json:"configs"`
}

type registryConfig struct {
	Auth *struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Auth     string `json:"auth"`
		Token    string `json:"identity_token"`
	} `json:"auth"`
	TLS *struct {
		CA       string `json:"ca_file"`
		Cert     string `json:"cert_file"`
		Key      string `json:"key_file"`
		Insecure bool   `json:"insecure_skip_verify"`
	} `json:"tls"`
}

// writeRegistryHosts renders registries.yaml into one hosts.toml for each
// registry. It starts from nothing each time: a registry that has left the file
// must leave containerd too.
func writeRegistryHosts(file, dir string, noDefault bool) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear the registry settings: %w", err)
	}
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return fmt.Errorf("read the registries: %w", err)
	}
	var settings registries
	if err := yaml.Unmarshal(content, &settings); err != nil {
		return fmt.Errorf("%s is not what docs.k3s.io/installation/private-registry describes: %w", file, err)
	}
	for name, hosts := range settings.render(noDefault) {
		if err := layout.Write(filepath.Join(dir, directoryOf(name), "hosts.toml"), []byte(hosts), 0o600); err != nil {
			return fmt.Errorf("write the settings of registry %s: %w", name, err)
		}
	}
	return nil
}

// directoryOf: containerd calls the one for all registries `_default` and
// writes a port as _PORT_.
func directoryOf(name string) string {
	if name == "*" {
		return "_default"
	}
	if host, port, found := strings.Cut(name, ":"); found {
		return host + "_" + port + "_"
	}
	return name
}

// render gives each registry that is named anywhere its hosts.toml.
func (r registries) render(noDefault bool) map[string]string {
	names := map[string]bool{}
	for name := range r.Mirrors {
		names[name] = true
	}
	for name := range r.Configs {
		names[name] = true
	}
	hosts := map[string]string{}
	for name := range names {
		hosts[name] = r.hostsOf(name, noDefault)
	}
	return hosts
}

func (r registries) hostsOf(name string, noDefault bool) string {
	var b strings.Builder
	mirror := r.Mirrors[name]
	if noDefault && len(mirror.Endpoints) > 0 {
		// containerd always ends at a server: let it be a mirror again.
		fmt.Fprintf(&b, "server = %q\n", mirror.Endpoints[len(mirror.Endpoints)-1])
	} else if name != "*" {
		// Without `server` containerd ends at the registry itself, with these settings.
		r.Configs[name].write(&b, "")
	}
	for _, endpoint := range mirror.Endpoints {
		address, err := url.Parse(endpoint)
		if err != nil || address.Host == "" {
			address = &url.URL{Scheme: "https", Host: endpoint}
		}
		if address.Path == "" || address.Path == "/" {
			address.Path = "/v2"
		}
		fmt.Fprintf(&b, "\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", address.String())
		if address.Path != "/v2" {
			b.WriteString("  override_path = true\n")
		}
		r.Configs[address.Host].write(&b, fmt.Sprintf("host.%q", address.String()))
		writeRewrites(&b, mirror.Rewrites)
	}
	return b.String()
}

// writeRewrites says in the file that they are not done: containerd of itself
// has none, k3s builds its own.
func writeRewrites(b *strings.Builder, rewrites map[string]string) {
	patterns := make([]string, 0, len(rewrites))
	for pattern := range rewrites {
		patterns = append(patterns, pattern)
	}
	sort.Strings(patterns)
	for _, pattern := range patterns {
		fmt.Fprintf(b, "  # rewrite %q is not built in the offline node image\n", pattern)
	}
}

// write adds TLS and basic authentication to the table that is open; header is
// its name, which a subtable has to repeat.
func (c registryConfig) write(b *strings.Builder, table string) {
	if t := c.TLS; t != nil {
		if t.CA != "" {
			fmt.Fprintf(b, "  ca = [%q]\n", t.CA)
		}
		if t.Cert != "" {
			fmt.Fprintf(b, "  client = [[%q, %q]]\n", t.Cert, t.Key)
		}
		if t.Insecure {
			b.WriteString("  skip_verify = true\n")
		}
	}
	if c.Auth == nil {
		return
	}
	credentials := c.Auth.Auth
	if credentials == "" {
		credentials = base64.StdEncoding.EncodeToString([]byte(c.Auth.Username + ":" + c.Auth.Password))
	}
	if table != "" {
		table += "."
	}
	fmt.Fprintf(b, "  [%sheader]\n    Authorization = [%q]\n", table, "Basic "+credentials)
}
