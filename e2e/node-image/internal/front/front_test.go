package front

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
)

func TestEachPathHasItsAnswerer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "supervisor.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	supervisor := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "supervisor "+r.URL.Path)
	})}
	go supervisor.Serve(listener)
	defer supervisor.Close()
	handler := Handler([]byte("the CA"), socket, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "kubernetes")
	}))

	for _, one := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/ping", 200, "pong"},
		{"GET", "/cacerts", 200, "the CA"},
		{"POST", "/ping", 405, "only GET is answered here\n"},
		{"GET", "/readyz", 200, "kubernetes"},
		{"POST", "/v1-k3s/agent", 200, "supervisor /v1-k3s/agent"},
	} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest(one.method, one.path, nil))
		if answer.Code != one.code || answer.Body.String() != one.body {
			t.Errorf("%s %s: %d %q", one.method, one.path, answer.Code, answer.Body)
		}
	}
}
