package join

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"

	"k3nest.dev/k3nest/e2e/node-image/internal/cluster"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/pki"
)

// Desk is a server's half: it answers those who join.
type Desk struct {
	Authorities *pki.Cluster
	Settings    Settings
	Managed     bool
	Client      kubernetes.Interface
	Ready       <-chan struct{} // closed when the API knows its own roles: agents come in then
	Members     func(context.Context) ([]string, error)
}

// Serve answers on a socket until ctx ends; kube-apiserver sends there what
// comes in on its port (internal/front).
func (d *Desk) Serve(ctx context.Context, socket string) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return fmt.Errorf("make the directory of the supervisor's socket: %w", err)
	}
	// One that a former life left behind cannot be listened on.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the former supervisor's socket: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for nodes that join: %w", err)
	}
	server := &http.Server{Handler: d.handler(ctx), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener)
	context.AfterFunc(ctx, func() { server.Close() })
	return nil
}

func (d *Desk) handler(ctx context.Context) http.Handler {
	paths := http.NewServeMux()
	paths.HandleFunc("POST "+agentPath, func(w http.ResponseWriter, r *http.Request) {
		d.answer(w, r, true, func(node Node) (any, error) { return d.admitAgent(ctx, r.Context(), node) })
	})
	paths.HandleFunc("POST "+serverPath, func(w http.ResponseWriter, r *http.Request) {
		d.answer(w, r, false, func(Node) (any, error) { return d.admitServer(r.Context()) })
	})
	return paths
}

// refusal is an error with an HTTP status of its own.
type refusal struct {
	status int
	error
}

func (d *Desk) answer(w http.ResponseWriter, r *http.Request, agent bool, admit func(Node) (any, error)) {
	content, err := d.admit(r, agent, admit)
	if err == nil {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(content)
		return
	}
	status := http.StatusServiceUnavailable // it will pass: the API is still starting
	var refused refusal
	if errors.As(err, &refused) {
		status = refused.status
		asker := r.Header.Get("X-Forwarded-For")
		logging.Errorf("Sending HTTP %d response to %s: %v", status, asker, err)
	}
	http.Error(w, err.Error(), status)
}

func (d *Desk) admit(r *http.Request, agent bool, admit func(Node) (any, error)) (any, error) {
	if err := d.authenticate(r, agent); err != nil {
		return nil, err
	}
	var node Node
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&node); err != nil {
		return nil, refusal{http.StatusBadRequest, fmt.Errorf("read what the node says of itself: %w", err)}
	}
	if problems := validation.IsDNS1123Subdomain(node.Name); len(problems) > 0 {
		return nil, refusal{http.StatusBadRequest, fmt.Errorf("the node name %q: %s", node.Name, strings.Join(problems, "; "))}
	}
	if net.ParseIP(node.IP) == nil {
		return nil, refusal{http.StatusBadRequest, fmt.Errorf("the node's address %q is not one", node.IP)}
	}
	return admit(node)
}

// authenticate takes the server's password for everything, and the agents' one or
// a bootstrap token for agents (docs.k3s.io/cli/token).
func (d *Desk) authenticate(r *http.Request, agent bool) error {
	_, password, _ := r.BasicAuth()
	if same(password, d.Authorities.Password) {
		return nil
	}
	if agent && d.Authorities.AgentPassword != "" && same(password, d.Authorities.AgentPassword) {
		return nil
	}
	if agent {
		valid, err := cluster.BootstrapToken(r.Context(), d.Client, password)
		if err != nil || valid {
			return err
		}
	}
	return refusal{http.StatusUnauthorized, errors.New("not authorized")}
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func (d *Desk) admitAgent(running, request context.Context, node Node) (any, error) {
	select {
	case <-d.Ready:
	default:
		return nil, errors.New("the API is not ready")
	}
	password := cluster.NodePassword{Node: node.Name, Password: node.Password}
	if err := password.Admit(request, d.Client); err != nil {
		if errors.Is(err, pki.ErrOtherPassword) {
			return nil, refusal{http.StatusForbidden, err}
		}
		return nil, err
	}
	go password.BindSoon(running, d.Client)
	files, err := d.Authorities.AgentFiles(node.Name, node.IP, time.Now())
	return AgentAnswer{Settings: d.Settings, Files: files}, err
}

func (d *Desk) admitServer(ctx context.Context) (any, error) {
	members, err := d.Members(ctx)
	return ServerAnswer{Settings: d.Settings, Managed: d.Managed, Members: members}, err
}
