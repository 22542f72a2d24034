package join

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/pki"
)

// newDesk serves a desk as kube-apiserver's port would, and returns its URL and
// the CA that it answers with.
func newDesk(t *testing.T, ready bool) (desk *Desk, url string, authority []byte) {
	t.Helper()
	authorities, err := pki.OpenCluster(layout.Dirs{Data: t.TempDir()}, "word")
	if err != nil {
		t.Fatal(err)
	}
	if err := authorities.WriteAgentToken("agents-word"); err != nil {
		t.Fatal(err)
	}
	open := make(chan struct{})
	if ready {
		close(open)
	}
	desk = &Desk{
		Authorities: authorities, Settings: Settings{ClusterDomain: "cluster.local"}, Managed: true,
		Client: fake.NewClientset(), Ready: open,
		Members: func(context.Context) ([]string, error) { return []string{"https://10.0.0.1:2379"}, nil },
	}
	paths := http.NewServeMux()
	paths.Handle(Prefix, desk.handler(t.Context()))
	server := httptest.NewUnstartedServer(paths)
	paths.HandleFunc("/cacerts", func(w http.ResponseWriter, _ *http.Request) { w.Write(authority) })
	server.StartTLS()
	t.Cleanup(server.Close)
	authority = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return desk, server.URL, authority
}

func TestTheFirstMachineOfANameKeepsIt(t *testing.T) {
	desk, url, _ := newDesk(t, true)
	asker := Asker{Server: url, Token: "agents-word"}

	answer, err := asker.Agent(t.Context(), Node{Name: "n", IP: "10.0.0.2", Password: "one"})
	if err != nil || answer.Settings != desk.Settings || len(answer.Files["client-kubelet.key"]) == 0 {
		t.Fatalf("%v, %v", answer.Settings, err)
	}
	if _, err := asker.Agent(t.Context(), Node{Name: "n", IP: "10.0.0.2", Password: "one"}); err != nil {
		t.Errorf("the same machine again: %v", err)
	}
	_, err = asker.Agent(t.Context(), Node{Name: "n", IP: "10.0.0.2", Password: "two"})
	if !errors.Is(err, ErrForbidden) || !strings.Contains(err.Error(), "unable to verify password for node n") {
		t.Errorf("another machine: %v", err)
	}
	secrets := desk.Client.CoreV1().Secrets("kube-system")
	if err := secrets.Delete(t.Context(), "n.node-password.k3s", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := asker.Agent(t.Context(), Node{Name: "n", IP: "10.0.0.2", Password: "two"}); err != nil {
		t.Errorf("another machine after the Secret was deleted: %v", err)
	}
}

func TestWhoMayJoin(t *testing.T) {
	_, url, authority := newDesk(t, true)
	node := Node{Name: "n", IP: "10.0.0.2", Password: "one"}
	for _, one := range []struct {
		what, token   string
		agent, server bool
	}{
		{"the server token", "word", true, true},
		{"the full server token", pki.FormatToken(authority, "server", "word"), true, true},
		{"a token of another CA", pki.FormatToken([]byte("other"), "server", "word"), false, false},
		{"the agent token", "agents-word", true, false},
		{"a wrong token", "wrong", false, false},
		{"a bootstrap token that nobody made", "abcdef.0123456789abcdef", false, false},
	} {
		asker := Asker{Server: url, Token: one.token}
		if _, err := asker.Agent(t.Context(), node); (err == nil) != one.agent || (err != nil && !errors.Is(err, ErrUnauthorized)) {
			t.Errorf("%s, as an agent: %v", one.what, err)
		}
		if _, err := asker.Servers(t.Context(), node); (err == nil) != one.server || (err != nil && !errors.Is(err, ErrUnauthorized)) {
			t.Errorf("%s, as a server: %v", one.what, err)
		}
	}
}

func TestAgentsWaitUntilTheAPIIsReady(t *testing.T) {
	_, url, _ := newDesk(t, false)
	node := Node{Name: "n", IP: "10.0.0.2", Password: "one"}
	_, err := Asker{Server: url, Token: "word"}.Agent(t.Context(), node)
	if err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("an agent: %v", err)
	}
	answer, err := Asker{Server: url, Token: "word"}.Servers(t.Context(), node)
	if err != nil || len(answer.Members) != 1 {
		t.Errorf("a server: %v, %v", answer, err)
	}
}

func TestNodesThatCannotBeOnesAreRefused(t *testing.T) {
	_, url, _ := newDesk(t, true)
	for _, node := range []Node{{Name: "Upper", IP: "10.0.0.2"}, {Name: "a/b", IP: "10.0.0.2"}, {Name: "n", IP: "nowhere"}} {
		_, err := Asker{Server: url, Token: "word"}.Agent(t.Context(), node)
		if err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("%v: %v", node, err)
		}
	}
}

func TestServersMustAgree(t *testing.T) {
	own := Settings{ClusterCIDR: "10.42.0.0/16", FlannelBackend: "vxlan"}
	if err := own.Differences(own); err != nil {
		t.Error(err)
	}
	err := own.Differences(Settings{ClusterCIDR: "10.99.0.0/16", FlannelBackend: "vxlan"})
	if err == nil || !strings.Contains(err.Error(), "--cluster-cidr is 10.42.0.0/16 here and 10.99.0.0/16") ||
		strings.Contains(err.Error(), "flannel") {
		t.Errorf("%v", err)
	}
}

func TestPausesAreShortAtFirstAndLongForTheRefused(t *testing.T) {
	for _, one := range []struct {
		asked time.Duration
		err   error
		want  time.Duration
	}{
		{0, errors.New("refused"), 100 * time.Millisecond},
		{10 * time.Second, errors.New("refused"), 412500 * time.Microsecond},
		{time.Hour, errors.New("refused"), 2 * time.Second},
		{0, ErrForbidden, 2 * time.Second},
	} {
		if got := pause(one.asked, one.err); got != one.want {
			t.Errorf("after %s: %s, want %s", one.asked, got, one.want)
		}
	}
}
