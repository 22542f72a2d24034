package join

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"k3nest.dev/k3nest/e2e/node-image/internal/pki"
)

// ErrForbidden is what a node gets that has another's name.
var ErrForbidden = errors.New("forbidden")

// ErrUnauthorized is what a wrong token gets.
var ErrUnauthorized = errors.New("not authorized")

// attemptLimit is how long one question may take: a server that is starting may
// accept a connection long before it answers.
const attemptLimit = 10 * time.Second

// Asker asks one server, or whatever balances several, once for each call.
type Asker struct {
	Server    string // https://HOST:PORT
	Token     string // short or full
	Authority []byte // the CA that must be there, if it is known before
}

// Agent asks for what an agent needs.
func (a Asker) Agent(ctx context.Context, node Node) (answer AgentAnswer, err error) {
	return answer, a.ask(ctx, agentPath, node, &answer)
}

// Servers asks for what a server needs.
func (a Asker) Servers(ctx context.Context, node Node) (answer ServerAnswer, err error) {
	return answer, a.ask(ctx, serverPath, node, &answer)
}

func (a Asker) ask(ctx context.Context, path string, node Node, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	authority, err := a.authority(ctx)
	if err != nil {
		return err
	}
	password, err := pki.ParsePassword(a.Token)
	if err != nil {
		return err
	}
	body, err := json.Marshal(node)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url(path), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.SetBasicAuth("node", password)
	content, err := do(request, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err != nil {
		return err
	}
	return json.Unmarshal(content, answer)
}

// authority fetches the cluster's CA from whoever answers, and checks it by the
// hash in the token, if there is one (docs.k3s.io/cli/token).
func (a Asker) authority(ctx context.Context) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url("/cacerts"), nil)
	if err != nil {
		return nil, fmt.Errorf("--server %s: %w", a.Server, err)
	}
	found, err := do(request, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, fmt.Errorf("failed to get CA certs: %w", err)
	}
	sum := sha256.Sum256(found)
	hash := hex.EncodeToString(sum[:])
	if wanted := pki.TokenHash(a.Token); wanted != "" && wanted != hash {
		return nil, fmt.Errorf("%w: token CA hash does not match the Cluster CA certificate hash: %s != %s", ErrUnauthorized, wanted, hash)
	}
	if a.Authority != nil && !bytes.Equal(a.Authority, found) {
		return nil, fmt.Errorf("%w: the cluster at %s was made with another token", ErrUnauthorized, a.Server)
	}
	return found, nil
}

func (a Asker) url(path string) string { return strings.TrimRight(a.Server, "/") + path }

func do(request *http.Request, config *tls.Config) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	text := strings.TrimSpace(string(content))
	switch response.StatusCode {
	case http.StatusOK:
		return content, nil
	case http.StatusUnauthorized:
		return nil, fmt.Errorf("%s: %w", request.URL, ErrUnauthorized)
	case http.StatusForbidden:
		return nil, fmt.Errorf("%w: %s", ErrForbidden, text)
	}
	return nil, fmt.Errorf("%s: %s: %s", request.URL, response.Status, text)
}
