package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhichNameserversPodsCanReach(t *testing.T) {
	for text, want := range map[string]bool{
		"nameserver 192.0.2.1\n":                        true,
		"search x\nnameserver 10.0.0.1 \noptions a\n":   true,
		"nameserver 127.0.0.11\n":                       false,
		"nameserver 192.0.2.1\nnameserver 127.0.0.53\n": false,
		"nameserver fe80::1\n":                          false,
		"search x\n":                                    false,
		"":                                              false,
	} {
		if got := reachableFromPods(text); got != want {
			t.Errorf("%q: %t, want %t", text, got, want)
		}
	}
}

func TestRegistriesBecomeHostsFiles(t *testing.T) {
	// given a mirror with its own CA and credentials
	dir := t.TempDir()
	file := filepath.Join(dir, "registries.yaml")
	settings := `
mirrors:
  docker.io:
    endpoint: ["https://mirror.test:5000", "http://plain.test/cache"]
  "registry.test:5000": {}
configs:
  "mirror.test:5000":
    auth: {username: user, password: word}
    tls: {ca_file: /ca.pem, insecure_skip_verify: true}
`
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	// and one that an earlier registries.yaml had
	target := filepath.Join(dir, "certs.d")
	if err := os.MkdirAll(filepath.Join(target, "gone.test"), 0o700); err != nil {
		t.Fatal(err)
	}

	// when they are rendered
	if err := writeRegistryHosts(file, target, false); err != nil {
		t.Fatal(err)
	}

	// then each has its directory and the earlier one is gone
	hosts, err := os.ReadFile(filepath.Join(target, "docker.io", "hosts.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`[host."https://mirror.test:5000/v2"]`, `ca = ["/ca.pem"]`, `skip_verify = true`,
		`[host."https://mirror.test:5000/v2".header]`, `Authorization = ["Basic dXNlcjp3b3Jk"]`,
		`[host."http://plain.test/cache"]`, `override_path = true`,
	} {
		if !strings.Contains(string(hosts), part) {
			t.Errorf("hosts.toml lacks %s:\n%s", part, hosts)
		}
	}
	for name, there := range map[string]bool{"registry.test_5000_": true, "mirror.test_5000_": true, "gone.test": false} {
		if _, err := os.Stat(filepath.Join(target, name)); (err == nil) != there {
			t.Errorf("directory %s: there %t, want %t", name, err == nil, there)
		}
	}
}
