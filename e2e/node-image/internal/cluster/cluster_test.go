package cluster

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestNodeHostsKeepWhatOthersWrote(t *testing.T) {
	present := []string{"10.0.0.1 host.k3d.internal", "10.0.0.2 a", "10.0.0.3 b", "10.0.0.4 c"}

	merged := MergeNodeHosts(present, map[string]string{"a": "10.0.0.9", "d": "10.0.0.5"}, map[string]string{"b": "10.0.0.3"})

	want := []string{"10.0.0.1 host.k3d.internal", "10.0.0.4 c", "10.0.0.5 d", "10.0.0.9 a"}
	if !slices.Equal(merged, want) {
		t.Errorf("%q, want %q", merged, want)
	}
}

func TestTokensDoNotReachTheAnnotation(t *testing.T) {
	got := hideSecrets([]string{"server", "--token", "word", "--token-file=/t", "--agent-token=word", "-t", "word", "-t=word", "--kubelet-arg=a=b", "-v=2"})

	want := []string{"server", "--token", "********", "--token-file", "/t",
		"--agent-token", "********", "-t", "********", "-t", "********", "--kubelet-arg", "a=b", "-v=2"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBootstrapTokensRunOut(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	secret := func(kind corev1.SecretType, expires string) *corev1.Secret {
		return &corev1.Secret{Type: kind, Data: map[string][]byte{
			"token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"), "expiration": []byte(expires)}}
	}
	for _, one := range []struct {
		what   string
		secret *corev1.Secret
		given  string
		valid  bool
	}{
		{"for ever", secret(corev1.SecretTypeBootstrapToken, ""), "0123456789abcdef", true},
		{"in time", secret(corev1.SecretTypeBootstrapToken, "2026-01-01T00:00:01Z"), "0123456789abcdef", true},
		{"too late", secret(corev1.SecretTypeBootstrapToken, "2026-01-01T00:00:00Z"), "0123456789abcdef", false},
		{"not a time", secret(corev1.SecretTypeBootstrapToken, "soon"), "0123456789abcdef", false},
		{"another secret", secret(corev1.SecretTypeBootstrapToken, ""), "fedcba9876543210", false},
		{"another type", secret(corev1.SecretTypeOpaque, ""), "0123456789abcdef", false},
	} {
		if got := validBootstrapToken(one.secret, one.given, now); got != one.valid {
			t.Errorf("%s: %v", one.what, got)
		}
	}
}
