package options

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// configuration writes config.yaml, and drop-ins beside it, and returns its path.
func configuration(t *testing.T, main string, dropIns map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(main), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+".d", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range dropIns {
		if err := os.WriteFile(filepath.Join(path+".d", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestTheCommandLineWinsOverTheFile(t *testing.T) {
	path := configuration(t, "https-listen-port: 7443\nnode-name: from-file\ncluster-init: true\n", nil)

	o, err := Parse("server", []string{"--config", path, "--node-name=From-Line", "--token", "t"})
	if err != nil {
		t.Fatal(err)
	}
	if o.HTTPSPort != 7443 || o.NodeName != "from-line" || !o.ClusterInit {
		t.Errorf("port %d, name %q, cluster-init %t", o.HTTPSPort, o.NodeName, o.ClusterInit)
	}
}

func TestRepeatableFlagsAddToTheFile(t *testing.T) {
	path := configuration(t, "tls-san: [one.example.test]\nkubelet-arg:\n- max-pods=50\n", nil)

	o, err := Parse("server", []string{"--config=" + path, "--tls-san", "two.example.test,192.0.2.1", "--kubelet-arg=v=2"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"one.example.test", "two.example.test", "192.0.2.1"}; !slices.Equal(o.TLSSANs, want) {
		t.Errorf("names %q, want %q", o.TLSSANs, want)
	}
	if want := []string{"max-pods=50", "v=2"}; !slices.Equal(o.KubeletArgs, want) {
		t.Errorf("kubelet arguments %q, want %q", o.KubeletArgs, want)
	}
}

func TestALaterDropInReplacesAndAPlusAppends(t *testing.T) {
	path := configuration(t, "token: first\nnode-label: [a=1]\n", map[string]string{
		"10.yaml": "token: second\n",
		"20.yaml": "node-label+: [b=2]\n",
		"30.txt":  "token: ignored\n",
	})

	o, err := Parse("server", []string{"-c", path})
	if err != nil {
		t.Fatal(err)
	}
	if o.Token != "second" || !slices.Equal(o.NodeLabels, []string{"a=1", "b=2"}) {
		t.Errorf("token %q, labels %q", o.Token, o.NodeLabels)
	}
}

func TestTheEnvironmentComesLast(t *testing.T) {
	path := configuration(t, "token: from-file\n", nil)
	t.Setenv("K3S_TOKEN", "from-environment")
	t.Setenv("K3S_KUBECONFIG_MODE", "0644")

	o, err := Parse("server", []string{"--config", path})
	if err != nil {
		t.Fatal(err)
	}
	if o.Token != "from-file" || o.WriteKubeconfigMode != "0644" {
		t.Errorf("token %q, mode %q", o.Token, o.WriteKubeconfigMode)
	}
}

func TestWhatIsRefused(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.yaml")
	for _, one := range []struct{ flag, message string }{
		{"--foo", "flag provided but not defined: -foo"},
		{"--datastore-endpoint=mysql://x", "--datastore-endpoint"},
		{"--flannel-backend=weave", "--flannel-backend"},
		{"--cluster-dns=192.0.2.1", "--cluster-dns"},
		{"--token-file=/no/such/file", "--token-file"},
		{"--cluster-reset-restore-path=/snapshot", "--cluster-reset required"},
		{"argument", "does not take arguments"},
	} {
		_, err := Parse("server", []string{"--config", none, one.flag})
		if err == nil || !strings.Contains(err.Error(), one.message) {
			t.Errorf("%s: error %v, want one with %q", one.flag, err, one.message)
		}
	}
}

func TestAcceptedFlagsAreAccepted(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.yaml")
	o, err := Parse("server", []string{"--config", none, "--embedded-registry", "--disable=traefik,servicelb",
		"--disable", "local-storage", "--disable-network-policy", "--flannel-iface=eth0", "-v", "2"})
	if err != nil {
		t.Fatal(err)
	}
	if !o.Disabled("servicelb") || !o.Disabled("local-storage") || o.Disabled("coredns") {
		t.Errorf("disabled %q", o.Disable)
	}
	if o.ClusterDNS[0] != "10.43.0.10" || o.FirstServiceIP() != "10.43.0.1" {
		t.Errorf("DNS %q, first Service address %q", o.ClusterDNS, o.FirstServiceIP())
	}
}

func TestSnapshotFlagsMayFollowTheNames(t *testing.T) {
	path := configuration(t, "cluster-init: true\netcd-snapshot-dir: /backups\n", nil)

	o, names, err := ParseSnapshot([]string{"one", "--config", path, "two", "--node-name=n"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(names, []string{"one", "two"}) || o.EtcdSnapshotDir != "/backups" {
		t.Errorf("names %q, directory %q", names, o.EtcdSnapshotDir)
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	var help strings.Builder
	Help("server", &help)
	for _, line := range []string{
		"   --token value, -t value  [$K3S_TOKEN]\n",
		"   --https-listen-port value  (default: 6443)\n",
		"   --cluster-init  [$K3S_CLUSTER_INIT]\n",
		"IN THIS IMAGE:\n   --airgap-extra-registry value\n",
		"   --docker\n",
	} {
		if !strings.Contains(help.String(), line) {
			t.Errorf("the help lacks %q:\n%s", line, help.String())
		}
	}
}
