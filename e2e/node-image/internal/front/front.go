// Package front answers, on the API server's own port, the two paths that k3s
// answers there without credentials.
//
// It wraps the handler inside kube-apiserver. A proxy in front of it would have
// to carry client certificates, upgrades and watches; here all of those stay
// between the client and kube-apiserver, and nothing can be lost on the way.
// Joining nodes will find their paths (/v1-k3s/...) here too.
package front

import (
	"net/http"
)

// Handler serves /ping and /cacerts and leaves everything else to kubernetes.
func Handler(authority []byte, kubernetes http.Handler) http.Handler {
	paths := map[string][]byte{
		"/ping":    []byte("pong"), // tells a load balancer that the server lives
		"/cacerts": authority,      // docs.k3s.io/cli/token: what a joining node checks
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
