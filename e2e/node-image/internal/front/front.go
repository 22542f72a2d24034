// Package front answers, on the API server's own port, the paths that k3s
// answers there besides Kubernetes' own.
//
// It wraps the handler inside kube-apiserver. A proxy in front of it would have
// to carry client certificates, upgrades and watches; here all of those stay
// between the client and kube-apiserver, and nothing can be lost on the way.
// What joining nodes ask for goes on to the supervisor, by its socket.
package front

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"k3nest.dev/k3nest/e2e/node-image/internal/join"
)

// Handler serves /ping, /cacerts and the paths of joining nodes, and leaves
// everything else to kubernetes.
func Handler(authority []byte, supervisorSocket string, kubernetes http.Handler) http.Handler {
	paths := map[string][]byte{
		"/ping":    []byte("pong"), // tells a load balancer that the server lives
		"/cacerts": authority,      // docs.k3s.io/cli/token: what a joining node checks
	}
	supervisor := toSocket(supervisorSocket)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, join.Prefix) {
			supervisor.ServeHTTP(w, r)
			return
		}
		content, ours := paths[r.URL.Path]
		if !ours {
			kubernetes.ServeHTTP(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "only GET is answered here", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		w.Write(content)
	})
}

func toSocket(path string) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "supervisor"})
			r.SetXForwarded() // the supervisor names who asked
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		},
	}
}
