package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// A clusterClient speaks to the node from outside, with what the node's own
// admin kubeconfig says.
type clusterClient struct {
	roots *x509.CertPool
	admin tls.Certificate
}

// kubeconfig is the part of a kubeconfig that a client needs. It is read as
// JSON through kubectl, which saves a YAML parser.
type kubeconfig struct {
	Clusters []struct {
		Cluster struct {
			CA []byte `json:"certificate-authority-data"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		User struct {
			Certificate []byte `json:"client-certificate-data"`
			Key         []byte `json:"client-key-data"`
		} `json:"user"`
	} `json:"users"`
}

func (n *node) credentials(ctx context.Context) (*clusterClient, error) {
	out, err := docker(ctx, "exec", n.name, "kubectl", "config", "view", "--raw", "-o", "json")
	if err != nil {
		return nil, err
	}
	var config kubeconfig
	if err := json.Unmarshal([]byte(out), &config); err != nil {
		return nil, fmt.Errorf("kubeconfig of the node: %w", err)
	}
	if len(config.Clusters) == 0 || len(config.Users) == 0 {
		return nil, errors.New("the kubeconfig of the node has no cluster or no user")
	}
	client := &clusterClient{roots: x509.NewCertPool()}
	if !client.roots.AppendCertsFromPEM(config.Clusters[0].Cluster.CA) {
		return nil, errors.New("the kubeconfig of the node has no CA certificate")
	}
	user := config.Users[0].User
	client.admin, err = tls.X509KeyPair(user.Certificate, user.Key)
	return client, err
}

func (n *node) publishedAddress(ctx context.Context, port string) (string, error) {
	out, err := docker(ctx, "port", n.name, port+"/tcp")
	first, _, _ := strings.Cut(out, "\n")
	return first, err
}

// api asks for "CREDENTIAL PORT PATH". Without credentials the server is not
// verified either: that is how a joining node fetches /cacerts.
func (n *node) api(ctx context.Context, subject string) (observation, error) {
	fields := strings.Fields(subject)
	if len(fields) != 3 {
		return observation{}, fmt.Errorf("api wants CREDENTIAL PORT PATH, not %q", subject)
	}
	credential, port, path := fields[0], fields[1], fields[2]
	config := &tls.Config{InsecureSkipVerify: true}
	if credential == "admin" {
		client, err := n.credentials(ctx)
		if err != nil {
			return observation{}, err
		}
		config = &tls.Config{RootCAs: client.roots, Certificates: []tls.Certificate{client.admin}}
	}
	address, err := n.publishedAddress(ctx, port)
	if err != nil {
		return observation{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+path, nil)
	if err != nil {
		return observation{}, err
	}
	client := &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true},
	}
	response, err := client.Do(request)
	if err != nil {
		return observation{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return observation{fmt.Sprint(response.StatusCode), string(body)}, err
}

// tls asks whether the certificate that is served for a name, or for the
// connection's own address, holds for it: "PORT NAME".
func (n *node) tls(ctx context.Context, subject string) (observation, error) {
	port, name, _ := strings.Cut(subject, " ")
	client, err := n.credentials(ctx)
	if err != nil {
		return observation{}, err
	}
	address, err := n.publishedAddress(ctx, port)
	if err != nil {
		return observation{}, err
	}
	dialer := &tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 10 * time.Second},
		Config:    &tls.Config{RootCAs: client.roots, ServerName: name},
	}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	var wrongName x509.HostnameError
	switch {
	case errors.As(err, &wrongName):
		return observation{"refused", err.Error()}, nil
	case err != nil:
		return observation{}, err
	}
	return observation{"verifies", ""}, conn.Close()
}
