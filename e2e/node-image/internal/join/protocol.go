// Package join is what nodes and servers say to each other when a node joins.
//
// A joining server derives all keys from the token, and asks only for the members
// of etcd. An agent may have nothing but an agent token, from which nothing can
// be derived: it is sent its certificates, once the rule of the node password
// (docs.k3s.io/architecture, "How agent node registration works") lets it in.
package join

import (
	"fmt"
	"strings"

	"k3nest.dev/k3nest/e2e/node-image/internal/options"
)

const (
	// Prefix is where k3s, too, answers those who join.
	Prefix     = "/v1-k3s/"
	agentPath  = Prefix + "agent"
	serverPath = Prefix + "server"
)

// Node is what a joining node says of itself.
type Node struct {
	Name     string `json:"name"`
	IP       string `json:"ip"`
	Password string `json:"password,omitempty"`
}

// Settings are those that must be the same on all nodes.
type Settings struct {
	ClusterCIDR       string `json:"clusterCIDR"`
	ServiceCIDR       string `json:"serviceCIDR"`
	ClusterDNS        string `json:"clusterDNS"`
	ClusterDomain     string `json:"clusterDomain"`
	FlannelBackend    string `json:"flannelBackend"`
	SecretsEncryption bool   `json:"secretsEncryption"`
	DisableKubeProxy  bool   `json:"disableKubeProxy"`
}

// AgentAnswer is all that an agent needs.
type AgentAnswer struct {
	Settings Settings          `json:"settings"`
	Files    map[string][]byte `json:"files"` // by name, below the agent's directory
}

// ServerAnswer is all that a server needs besides its token.
type ServerAnswer struct {
	Settings Settings `json:"settings"`
	Managed  bool     `json:"managed"` // the datastore can have more members
	Members  []string `json:"members"` // etcd's client URLs
}

// SettingsOf are those of a server's command line.
func SettingsOf(o *options.Options) Settings {
	return Settings{
		ClusterCIDR:       strings.Join(o.ClusterCIDR, ","),
		ServiceCIDR:       strings.Join(o.ServiceCIDR, ","),
		ClusterDNS:        strings.Join(o.ClusterDNS, ","),
		ClusterDomain:     o.ClusterDomain,
		FlannelBackend:    o.FlannelBackend,
		SecretsEncryption: o.SecretsEncryption,
		DisableKubeProxy:  o.DisableKubeProxy,
	}
}

// Apply gives an agent's options what its command line cannot say.
func (s Settings) Apply(o *options.Options) {
	o.ClusterCIDR = strings.Split(s.ClusterCIDR, ",")
	o.ServiceCIDR = strings.Split(s.ServiceCIDR, ",")
	o.ClusterDNS = strings.Split(s.ClusterDNS, ",")
	o.ClusterDomain = s.ClusterDomain
	o.FlannelBackend = s.FlannelBackend
	o.DisableKubeProxy = s.DisableKubeProxy
}

// Differences names what a joining server was given otherwise; k3s refuses to
// run with it, since the servers would undo each other's work.
func (s Settings) Differences(clusters Settings) error {
	var found []string
	for _, one := range []struct{ flag, own, clusters string }{
		{"cluster-cidr", s.ClusterCIDR, clusters.ClusterCIDR},
		{"service-cidr", s.ServiceCIDR, clusters.ServiceCIDR},
		{"cluster-dns", s.ClusterDNS, clusters.ClusterDNS},
		{"cluster-domain", s.ClusterDomain, clusters.ClusterDomain},
		{"flannel-backend", s.FlannelBackend, clusters.FlannelBackend},
		{"secrets-encryption", fmt.Sprint(s.SecretsEncryption), fmt.Sprint(clusters.SecretsEncryption)},
	} {
		if one.own != one.clusters {
			found = append(found, fmt.Sprintf("--%s is %s here and %s in the cluster", one.flag, one.own, one.clusters))
		}
	}
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("critical configuration value mismatch between servers: %s", strings.Join(found, "; "))
}
