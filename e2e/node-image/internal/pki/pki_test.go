package pki

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
)

var now = time.Date(2026, 5, 7, 12, 0, 0, 0, time.UTC)

func TestTheSameTokenGivesTheSameAuthority(t *testing.T) {
	one, err := DeriveAuthority("secret", "server-ca")
	if err != nil {
		t.Fatal(err)
	}
	again, err := DeriveAuthority("secret", "server-ca")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.PEM, again.PEM) {
		t.Error("two derivations differ, so two servers of a cluster would")
	}
	for _, other := range [][2]string{{"secret2", "server-ca"}, {"secret", "client-ca"}} {
		different, err := DeriveAuthority(other[0], other[1])
		if err != nil {
			t.Fatal(err)
		}
		if one.Key.Equal(different.Key) {
			t.Errorf("%q has the key of server-ca", other)
		}
	}
}

func TestWhenALeafIsMadeAnew(t *testing.T) {
	authority, err := DeriveAuthority("secret", "server-ca")
	if err != nil {
		t.Fatal(err)
	}
	leaf := Leaf{"kube-apiserver", nil, []string{"b.test", "a.test", "192.0.2.1"}, serverUse}
	reordered := Leaf{"kube-apiserver", nil, []string{"192.0.2.1", "a.test", "b.test", "a.test"}, serverUse}
	renamed := Leaf{"kube-apiserver", nil, []string{"a.test", "192.0.2.1"}, serverUse}
	for _, one := range []struct {
		name string
		leaf Leaf
		at   time.Time
		anew bool
	}{
		{"the same", leaf, now, false},
		{"other order", reordered, now, false},
		{"another name", renamed, now, true},
		{"121 days left", leaf, now.Add(leafLifetime - 121*24*time.Hour), false},
		{"119 days left", leaf, now.Add(leafLifetime - 119*24*time.Hour), true},
	} {
		base := filepath.Join(t.TempDir(), "serving")
		if err := authority.Ensure(base, leaf, now); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(base + ".crt")
		if err := authority.Ensure(base, one.leaf, one.at); err != nil {
			t.Fatal(err)
		}
		after, _ := os.ReadFile(base + ".crt")
		if anew := !bytes.Equal(before, after); anew != one.anew {
			t.Errorf("%s: made anew %t, want %t", one.name, anew, one.anew)
		}
	}
}

func TestAClusterKeepsItsTokenAndRefusesAnother(t *testing.T) {
	dirs := layout.Dirs{Data: t.TempDir()}
	first, err := OpenCluster(dirs, "secret")
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenCluster(dirs, "")
	if err != nil {
		t.Fatal(err)
	}
	if again.Password != "secret" || !bytes.Equal(first.Server.PEM, again.Server.PEM) {
		t.Errorf("reopened with the password %q", again.Password)
	}
	full, err := os.ReadFile(dirs.NodeToken())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCluster(dirs, string(full)); err != nil {
		t.Errorf("the full token of node-token: %v", err)
	}
	if _, err := OpenCluster(dirs, "other"); !errors.Is(err, ErrOtherToken) {
		t.Errorf("another token: error %v", err)
	}
}

func TestTheServingPairLoads(t *testing.T) {
	dirs := layout.Dirs{Data: t.TempDir()}
	cluster, err := OpenCluster(dirs, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.IssueServer("n", "192.0.2.9", []string{"kubernetes", "192.0.2.9"}, now); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(dirs.TLS("serving-kube-apiserver.crt"), dirs.TLS("serving-kube-apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	if pair.Leaf.VerifyHostname("192.0.2.9") != nil || pair.Leaf.VerifyHostname("elsewhere.test") == nil {
		t.Errorf("names %v %v", pair.Leaf.DNSNames, pair.Leaf.IPAddresses)
	}
}

func TestPasswordsOfTokens(t *testing.T) {
	for token, want := range map[string]string{
		"plain": "plain", " spaced\n": "spaced", "K10abc::server:word": "word", "K10abc::word": "word",
	} {
		if got, err := ParsePassword(token); err != nil || got != want {
			t.Errorf("%q: %q, %v", token, got, err)
		}
	}
	if _, err := ParsePassword("K10abc"); err == nil {
		t.Error("a token that is cut short was taken")
	}
}

func TestTheAgentTokenIsItsOwnOrTheServers(t *testing.T) {
	dirs := layout.Dirs{Data: t.TempDir()}
	cluster, err := OpenCluster(dirs, "secret")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct{ token, want string }{
		{"", FormatToken(cluster.Server.PEM, "server", "secret")},
		{"word", FormatToken(cluster.Server.PEM, "node", "word")},
		{"K10abc::node:word", FormatToken(cluster.Server.PEM, "node", "word")},
		{"", FormatToken(cluster.Server.PEM, "server", "secret")}, // taken back
	} {
		if err := cluster.WriteAgentToken(one.token); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(dirs.AgentToken())
		if err != nil || string(got) != one.want+"\n" {
			t.Errorf("%q: agent-token holds %q, %v", one.token, got, err)
		}
		server, err := os.ReadFile(dirs.Token())
		if err != nil || string(server) != FormatToken(cluster.Server.PEM, "server", "secret")+"\n" {
			t.Errorf("%q: the server token became %q, %v", one.token, server, err)
		}
	}
}

func TestHashesOfNodePasswords(t *testing.T) {
	hash, err := HashPassword("word")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^\$1:[0-9a-f]{16}:15:8:1:[A-Za-z0-9+/]{86}$`).MatchString(hash) {
		t.Errorf("the hash %q is not in k3s's form", hash)
	}
	if err := VerifyPassword(hash, "word"); err != nil {
		t.Errorf("the password itself: %v", err)
	}
	if err := VerifyPassword(hash, "other"); !errors.Is(err, ErrOtherPassword) {
		t.Errorf("another password: error %v", err)
	}
	for _, broken := range []string{"", "word", "$2" + hash[2:], hash[:30], "$1:0011223344556677:60:8:1:AAAA"} {
		if err := VerifyPassword(broken, "word"); err == nil || errors.Is(err, ErrOtherPassword) {
			t.Errorf("the broken hash %q: error %v", broken, err)
		}
	}
}
