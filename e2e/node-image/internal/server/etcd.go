package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"k3nest.dev/k3nest/e2e/node-image/internal/arguments"
	"k3nest.dev/k3nest/e2e/node-image/internal/etcd"
	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/options"
	"k3nest.dev/k3nest/e2e/node-image/internal/pki"
)

// etcdMember is this node's member of the cluster's etcd.
type etcdMember struct {
	Name    string
	NodeIP  string
	Dirs    layout.Dirs
	Options *options.Options

	cluster []string // what a joining member is to find, as NAME=PEER
}

func (e etcdMember) peerURL() string { return "https://" + e.NodeIP + ":2380" }

// newEtcdMember gives the member a name once: the node's name and a random end,
// so that a node that comes back with empty disks is another member, as in k3s.
func newEtcdMember(o *options.Options, nodeIP string) (etcdMember, error) {
	member := etcdMember{NodeIP: nodeIP, Dirs: o.Dirs(), Options: o}
	if err := buryRemoved(member.Dirs); err != nil {
		return member, err
	}
	stored, err := os.ReadFile(member.Dirs.EtcdName())
	if err == nil {
		member.Name = strings.TrimSpace(string(stored))
		return member, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return member, fmt.Errorf("read the name of this etcd member: %w", err)
	}
	if err := member.rename(); err != nil {
		return member, err
	}
	return member, member.writeName()
}

// rename gives the member a new name, as k3s does at each reset, too.
func (e *etcdMember) rename() error {
	suffix, err := pki.NewPassword()
	if err == nil {
		e.Name = e.Options.NodeName + "-" + suffix[:8]
	}
	return err
}

func (e etcdMember) writeName() error {
	if err := os.MkdirAll(e.Dirs.EtcdData(), 0o700); err != nil {
		return fmt.Errorf("make etcd's data directory: %w", err)
	}
	return layout.Write(e.Dirs.EtcdName(), []byte(e.Name), 0o600)
}

// settleManaged tells whether the etcd here is one that k3s would have: it has
// it from the first --cluster-init or --server on, and sqlite before. Here there is always
// etcd underneath, and only what is seen of it depends on that.
func settleManaged(o *options.Options) (bool, error) {
	mark := o.Dirs().ClusterMark()
	if o.ClusterInit || o.ClusterReset || o.Server != "" {
		return true, layout.Write(mark, nil, 0o600)
	}
	_, err := os.Stat(mark)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look whether --cluster-init was given before: %w", err)
	}
	return err == nil, nil
}

// args are those of a first member, unless it joins others; once etcd has data it
// does not look at the cluster that it is given.
func (e etcdMember) args() []string {
	members, state := []string{e.Name + "=" + e.peerURL()}, "new"
	if len(e.cluster) > 0 {
		members, state = e.cluster, "existing"
	}
	tls := e.Dirs.TLS
	metrics := "http://127.0.0.1:2381"
	if e.Options.EtcdExposeMetrics {
		metrics += ",http://" + e.NodeIP + ":2381"
	}
	return arguments.Merge([]string{
		"--name=" + e.Name,
		"--data-dir=" + e.Dirs.EtcdData(),
		"--listen-client-urls=https://127.0.0.1:2379,https://" + e.NodeIP + ":2379",
		"--advertise-client-urls=https://" + e.NodeIP + ":2379",
		"--listen-peer-urls=https://127.0.0.1:2380," + e.peerURL(),
		"--initial-advertise-peer-urls=" + e.peerURL(),
		"--initial-cluster=" + strings.Join(members, ","),
		"--initial-cluster-state=" + state,
		// Servers that are started together join together: see join.go.
		"--max-learners=8",
		"--listen-metrics-urls=" + metrics,
		"--cert-file=" + tls("etcd/server-client.crt"),
		"--key-file=" + tls("etcd/server-client.key"),
		"--client-cert-auth=true",
		"--trusted-ca-file=" + tls("etcd/server-ca.crt"),
		"--peer-cert-file=" + tls("etcd/peer-server-client.crt"),
		"--peer-key-file=" + tls("etcd/peer-server-client.key"),
		"--peer-client-cert-auth=true",
		"--peer-trusted-ca-file=" + tls("etcd/peer-ca.crt"),
		// k3s's own timings: slow disks and loaded hosts are its home.
		"--heartbeat-interval=500",
		"--election-timeout=5000",
		"--snapshot-count=10000",
		"--log-outputs=stderr",
		"--log-level=warn",
	}, e.Options.EtcdArgs)
}

// waitForMember waits until etcd answers, then makes sure that it still knows
// this node by this address. One that came back with another address would not
// be reached by the other members: k3s refuses to run with it, and so do we. A new
// name (rename) is known a moment after etcd's start.
func (e etcdMember) waitForMember(ctx context.Context) error {
	var misfit error
	err := e.untilAnswered(ctx, func(ctx context.Context, client *clientv3.Client) error {
		list, err := client.MemberList(ctx)
		if err != nil {
			return err
		}
		var found []string
		for _, member := range list.Members {
			if slices.Contains(member.PeerURLs, e.peerURL()) {
				if member.Name != e.Name {
					return fmt.Errorf("it knows this server as %s, which is %s now", member.Name, e.Name)
				}
				return nil
			}
			found = append(found, member.Name+"="+strings.Join(member.PeerURLs, ","))
		}
		misfit = fmt.Errorf("this server is a not a member of the etcd cluster. Found %v, expect: %s=%s; "+
			"give the node its old address again, or run once with --cluster-reset", found, e.Name, e.peerURL())
		return nil
	})
	return errors.Join(err, misfit)
}

// untilAnswered asks this node's own etcd until it answers.
func (e etcdMember) untilAnswered(ctx context.Context, ask func(context.Context, *clientv3.Client) error) error {
	// gRPC would complain loudly, and then wait a second, if it came too early.
	if err := waitForPort(ctx, "127.0.0.1:2379"); err != nil {
		return fmt.Errorf("etcd did not start: %w; read %s/etcd.log", err, layout.LogDir)
	}
	client, err := etcd.Client(e.Dirs)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := ask(attempt, client)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("etcd did not answer: %w; read %s/etcd.log", err, layout.LogDir)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
