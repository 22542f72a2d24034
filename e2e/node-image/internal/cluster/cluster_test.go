package cluster

import (
	"slices"
	"testing"
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
