package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
)

// Cluster is all the authorities of one cluster.
type Cluster struct {
	Dirs          layout.Dirs
	Password      string
	AgentPassword string // lets agents join and nobody else; empty without --agent-token

	Server, Client, RequestHeader *Authority
	EtcdServer, EtcdPeer          *Authority
}

// ErrOtherToken is k3s's own text for it, which its users search for.
var ErrOtherToken = errors.New("bootstrap data already found and encrypted with different token")

// OpenCluster derives the authorities from the token. A data directory that was
// made with another token is refused, as k3s does.
func OpenCluster(dirs layout.Dirs, token string) (*Cluster, error) {
	password, err := settlePassword(dirs, token)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dirs: dirs, Password: password}
	for _, one := range []struct {
		target **Authority
		file   string
	}{
		{&c.Server, "server-ca"},
		{&c.Client, "client-ca"},
		{&c.RequestHeader, "request-header-ca"},
		{&c.EtcdServer, "etcd/server-ca"},
		{&c.EtcdPeer, "etcd/peer-ca"},
	} {
		if *one.target, err = DeriveAuthority(password, one.file); err != nil {
			return nil, err
		}
		if err := c.store(*one.target, one.file); err != nil {
			return nil, err
		}
	}
	return c, c.writeTokens()
}

func settlePassword(dirs layout.Dirs, token string) (string, error) {
	stored, err := os.ReadFile(dirs.Token())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the stored token: %w", err)
	}
	known, err := ParsePassword(string(stored))
	if err != nil {
		return "", fmt.Errorf("the stored token %s: %w", dirs.Token(), err)
	}
	given, err := ParsePassword(token)
	if err != nil {
		return "", err
	}
	switch {
	case given == "" && known == "":
		return NewPassword()
	case given == "":
		return known, nil
	case known != "" && known != given:
		return "", fmt.Errorf("%w: start with the token of %s, or with an empty data directory", ErrOtherToken, dirs.Token())
	}
	return given, nil
}

// store writes an authority if it is not there, and refuses to replace one.
func (c *Cluster) store(authority *Authority, file string) error {
	path := c.Dirs.TLS(file + ".crt")
	found, err := os.ReadFile(path)
	if err == nil && string(found) == string(authority.PEM) {
		return nil
	}
	if err == nil {
		return fmt.Errorf("%s is not the authority that this token gives: %w", path, ErrOtherToken)
	}
	if err := WriteKey(c.Dirs.TLS(file+".key"), authority.Key); err != nil {
		return err
	}
	return layout.Write(path, authority.PEM, 0o644)
}

func (c *Cluster) writeTokens() error {
	token := []byte(FormatToken(c.Server.PEM, "server", c.Password) + "\n")
	if err := layout.Write(c.Dirs.Token(), token, 0o600); err != nil {
		return fmt.Errorf("write the server token: %w", err)
	}
	// k3s makes node-token a link to the token that agents are to use.
	return layout.Link(c.Dirs.Token(), c.Dirs.NodeToken())
}

// WriteAgentToken writes the token of --agent-token, which lets agents join and
// nobody else. Without one the file is a link to the server token, as in k3s.
func (c *Cluster) WriteAgentToken(token string) error {
	password, err := ParsePassword(token)
	if err != nil {
		return fmt.Errorf("--agent-token: %w", err)
	}
	c.AgentPassword = password
	if password == "" {
		return layout.Link(c.Dirs.Token(), c.Dirs.AgentToken())
	}
	full := FormatToken(c.Server.PEM, "node", password) + "\n"
	return layout.Write(c.Dirs.AgentToken(), []byte(full), 0o600)
}

// IssueServer makes what the control plane of this node needs. names are the
// host names and addresses that the API server's certificate may be asked for.
func (c *Cluster) IssueServer(nodeName, nodeIP string, names []string, now time.Time) error {
	etcdNames := []string{"localhost", "127.0.0.1", "::1", nodeName, nodeIP}
	masters := []string{"system:masters"}
	for _, one := range []struct {
		by   *Authority
		file string
		leaf Leaf
	}{
		{c.Server, "serving-kube-apiserver", Leaf{"kube-apiserver", nil, names, serverUse}},
		{c.Client, "client-admin", Leaf{"system:admin", masters, nil, clientUse}},
		{c.Client, "client-supervisor", Leaf{"system:k3s-supervisor", masters, nil, clientUse}},
		{c.Client, "client-controller", Leaf{"system:kube-controller-manager", nil, nil, clientUse}},
		{c.Client, "client-scheduler", Leaf{"system:kube-scheduler", nil, nil, clientUse}},
		{c.Client, "client-kube-apiserver", Leaf{"system:apiserver", masters, nil, clientUse}},
		{c.RequestHeader, "client-auth-proxy", Leaf{"system:auth-proxy", nil, nil, clientUse}},
		{c.EtcdServer, "etcd/server-client", Leaf{"etcd-server", nil, etcdNames, bothUses}},
		{c.EtcdServer, "etcd/client", Leaf{"etcd-client", nil, nil, clientUse}},
		{c.EtcdPeer, "etcd/peer-server-client", Leaf{"etcd-peer", nil, etcdNames, bothUses}},
	} {
		if err := one.by.Ensure(c.Dirs.TLS(one.file), one.leaf, now); err != nil {
			return err
		}
	}
	return c.writeServiceKey()
}

// writeServiceKey derives the key that signs service account tokens, so that
// all servers sign with the same one. The API server reads the public half.
func (c *Cluster) writeServiceKey() error {
	key, err := DeriveKey(c.Password, "service")
	if err != nil {
		return err
	}
	if err := WriteKey(c.Dirs.TLS("service.key"), key); err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return layout.Write(c.Dirs.TLS("service.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644)
}

// agentLeaves are the certificates of the kubelet and kube-proxy of a node, by
// their file below the agent's directory.
func (c *Cluster) agentLeaves(nodeName, nodeIP string) []agentLeaf {
	names := []string{nodeName, nodeIP, "localhost", "127.0.0.1"}
	return []agentLeaf{
		{"client-kubelet", c.Client, Leaf{"system:node:" + nodeName, []string{"system:nodes"}, nil, clientUse}},
		{"serving-kubelet", c.Server, Leaf{nodeName, nil, names, serverUse}},
		{"client-kube-proxy", c.Client, Leaf{"system:kube-proxy", nil, nil, clientUse}},
	}
}

type agentLeaf struct {
	file string
	by   *Authority
	leaf Leaf
}

// IssueAgent makes what the kubelet and kube-proxy of this server's node need.
func (c *Cluster) IssueAgent(nodeName, nodeIP string, now time.Time) error {
	for file, content := range c.agentAuthorities() {
		if err := layout.Write(c.Dirs.Agent(file), content, 0o644); err != nil {
			return err
		}
	}
	for _, one := range c.agentLeaves(nodeName, nodeIP) {
		if err := one.by.Ensure(c.Dirs.Agent(one.file), one.leaf, now); err != nil {
			return err
		}
	}
	return nil
}

// AgentFiles is the same for a node that joins: the content of each file.
func (c *Cluster) AgentFiles(nodeName, nodeIP string, now time.Time) (map[string][]byte, error) {
	files := c.agentAuthorities()
	for _, one := range c.agentLeaves(nodeName, nodeIP) {
		pair, err := one.by.Issue(one.leaf, now)
		if err != nil {
			return nil, fmt.Errorf("make the certificate %s of the node %s: %w", one.file, nodeName, err)
		}
		files[one.file+".crt"], files[one.file+".key"] = pair.Chain, pair.Key
	}
	return files, nil
}

func (c *Cluster) agentAuthorities() map[string][]byte {
	return map[string][]byte{"server-ca.crt": c.Server.PEM, "client-ca.crt": c.Client.PEM}
}

// WriteKubeconfigs writes those of the components, on this node's own API.
func (c *Cluster) WriteKubeconfigs(server string) error {
	d := c.Dirs
	for name, base := range map[string]string{
		"admin": "client-admin", "supervisor": "client-supervisor",
		"controller": "client-controller", "scheduler": "client-scheduler",
	} {
		if err := WriteComponentKubeconfig(d.Credential(name), server, d.TLS("server-ca.crt"), d.TLS(base)); err != nil {
			return err
		}
	}
	return nil
}

// PublishKubeconfig writes the one for people. When it goes elsewhere, the
// documented place links to it, which is where `kubectl` looks.
func (c *Cluster) PublishKubeconfig(path, server string, mode os.FileMode) error {
	if err := WriteUserKubeconfig(path, server, c.Dirs.TLS("server-ca.crt"), c.Dirs.TLS("client-admin"), mode); err != nil {
		return err
	}
	if path == layout.KubeconfigFile || strings.TrimSpace(path) == "" {
		return nil
	}
	return layout.Link(path, layout.KubeconfigFile)
}
