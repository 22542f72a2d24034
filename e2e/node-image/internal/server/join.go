package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"k3nest.dev/k3nest/e2e/node-image/internal/etcd"
	"k3nest.dev/k3nest/e2e/node-image/internal/join"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/process"
)

// A server joins as a learner, which counts for no quorum, and is promoted when
// it has caught up. etcd takes no further member for five seconds after it has a
// new voting one, so several learners at once are allowed: servers that are
// started together all get in before the first is promoted.

// startStore starts etcd, as a further member where --server says so and this
// node has no data yet (docs.k3s.io/datastore/ha-embedded), and returns when it
// is a voting member.
func (n *node) startStore(ctx context.Context) error {
	if n.options.Server == "" || exists(n.dirs.EtcdLog()) {
		if _, err := n.group.Component(process.Store, "etcd", n.etcd.args()); err != nil {
			return err
		}
		electing, elected := context.WithCancel(ctx)
		defer elected()
		go n.etcd.electAlone(electing)
		if err := n.becomeVoter(ctx, nil); err != nil {
			return err
		}
		return n.etcd.waitForMember(ctx)
	}
	members, err := n.askServers(ctx)
	if err != nil {
		return err
	}
	if err := n.joinStore(ctx, members); err != nil {
		return err
	}
	if err := n.becomeVoter(ctx, members); err != nil {
		return err
	}
	return n.etcd.waitForMember(ctx)
}

// errMisfit is what no waiting mends.
var errMisfit = errors.New("cannot join the cluster")

func (n *node) askServers(ctx context.Context) (members []string, err error) {
	asker := join.Asker{Server: n.options.Server, Token: n.options.Token, Authority: n.authorities.Server.PEM}
	self := join.Node{Name: n.options.NodeName, IP: n.ip}
	err = join.Until(ctx, "Waiting to join the cluster at "+n.options.Server, func() error {
		answer, err := asker.Servers(ctx, self)
		if err != nil {
			return err
		}
		if !answer.Managed {
			return fmt.Errorf("%w: the server at %s does not use etcd; it must have been started with --cluster-init", errMisfit, n.options.Server)
		}
		if err := join.SettingsOf(n.options).Differences(answer.Settings); err != nil {
			return fmt.Errorf("%w: %w", errMisfit, err)
		}
		if len(answer.Members) == 0 {
			return errors.New("etcd has no voting member yet")
		}
		members = answer.Members
		return nil
	}, func(err error) bool { return errors.Is(err, errMisfit) || errors.Is(err, join.ErrUnauthorized) })
	return members, err
}

// joinStore adds this node to the members and starts its etcd. etcd ends at once
// if another server joined between the two, and is then started with a new list.
func (n *node) joinStore(ctx context.Context, endpoints []string) error {
	client, err := etcd.ClientOf(n.dirs, endpoints)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		if err := n.addMember(ctx, client); err != nil {
			return err
		}
		if err := n.waitForTurn(ctx, client); err != nil {
			return err
		}
		started, err := n.group.Trial(process.Store, "etcd", n.etcd.args())
		if err != nil {
			return err
		}
		if n.etcd.tookIn(ctx, started) {
			n.group.Settle(started)
			return ctx.Err()
		}
		logging.Infof("etcd did not find the members that it was told of (%s); trying again", started.Exit())
		if err := os.RemoveAll(n.dirs.EtcdMember()); err != nil {
			return fmt.Errorf("remove what etcd began: %w", err)
		}
	}
}

// changeLimit is how long one change of etcd's members is waited for. Of changes
// that come together, raft drops all but one without a word; whether one was made
// after all is seen when the members are listed again. Short, so that a server
// whose change was dropped gets in before the other one is promoted.
const changeLimit = 400 * time.Millisecond

// turnLimit is how long another joining server is waited for. One that was added
// and never starts must not keep others out.
const turnLimit = 15 * time.Second

// waitForTurn waits for servers that were added and have not started, of those
// with a lower ID than this one. Members that start together ask one another for
// their version, and none answers before it was answered itself: each would wait
// out etcd's limits, half a minute and more.
func (n *node) waitForTurn(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, turnLimit)
	defer cancel()
	err := join.Until(ctx, "Waiting for another server to join etcd", func() error {
		attempt, cancel := context.WithTimeout(ctx, changeLimit)
		defer cancel()
		list, err := client.MemberList(attempt)
		if err != nil {
			return err
		}
		if before := n.etcd.startsBefore(list.Members); before != nil {
			return fmt.Errorf("%s has not started yet", strings.Join(before.PeerURLs, ","))
		}
		n.etcd.cluster = n.etcd.clusterOf(list.Members)
		return nil
	}, nil)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil
	}
	return err
}

// startsBefore is a member that is to start before this one. One that has started
// has told the others its name.
func (e etcdMember) startsBefore(members []*etcdserverpb.Member) *etcdserverpb.Member {
	self := slices.IndexFunc(members, func(m *etcdserverpb.Member) bool {
		return slices.Contains(m.PeerURLs, e.peerURL())
	})
	for _, member := range members {
		if self >= 0 && member.Name == "" && member.ID < members[self].ID {
			return member
		}
	}
	return nil
}

func (n *node) addMember(ctx context.Context, client *clientv3.Client) error {
	return join.Until(ctx, "Waiting to become a member of etcd", func() error {
		attempt, cancel := context.WithTimeout(ctx, changeLimit)
		defer cancel()
		list, err := client.MemberList(attempt)
		if err != nil {
			return err
		}
		known, err := n.etcd.isAmong(list.Members)
		if err != nil {
			// As k3s does: whoever is let in later is another member.
			return errors.Join(err, os.Remove(n.dirs.EtcdName()))
		}
		if !known {
			logging.Infof("Adding member %s=%s to etcd cluster %v", n.etcd.Name, n.etcd.peerURL(), n.etcd.clusterOf(list.Members))
			added, err := client.MemberAddAsLearner(attempt, []string{n.etcd.peerURL()})
			if err != nil {
				return err
			}
			list.Members = added.Members
		}
		n.etcd.cluster = n.etcd.clusterOf(list.Members)
		return nil
	}, func(err error) bool { return errors.Is(err, errMisfit) })
}

// isAmong tells whether an earlier attempt made this node a member already. One
// that has started there cannot be this node, which has no data.
func (e etcdMember) isAmong(members []*etcdserverpb.Member) (bool, error) {
	sameNode := regexp.MustCompile("^" + regexp.QuoteMeta(e.Options.NodeName) + "-[0-9a-f]{8}$")
	known := false
	for _, member := range members {
		here := slices.Contains(member.PeerURLs, e.peerURL())
		switch {
		case here && member.Name == "":
			known = true
		case here, sameNode.MatchString(member.Name):
			return false, fmt.Errorf("%w: duplicate node name found, please use a unique name for this node: "+
				"etcd has the member %s (%s); delete the Node to remove it",
				errMisfit, member.Name, strings.Join(member.PeerURLs, ","))
		}
	}
	return known, nil
}

// clusterOf is --initial-cluster. Members that have not started yet, others that
// join now among them, have no name; etcd compares only their addresses.
func (e etcdMember) clusterOf(members []*etcdserverpb.Member) []string {
	var cluster []string
	for _, member := range members {
		name := member.Name
		switch {
		case slices.Contains(member.PeerURLs, e.peerURL()):
			name = e.Name
		case name == "":
			name = fmt.Sprintf("not-started-%x", member.ID)
		}
		for _, url := range member.PeerURLs {
			cluster = append(cluster, name+"="+url)
		}
	}
	return cluster
}

// tookIn tells whether etcd found the cluster that it was told of: it begins its
// log of writes only then.
func (e etcdMember) tookIn(ctx context.Context, started *process.Process) bool {
	for !exists(e.Dirs.EtcdLog()) {
		select {
		case <-started.Done():
			return exists(e.Dirs.EtcdLog())
		case <-ctx.Done():
			return true
		case <-time.After(20 * time.Millisecond):
		}
	}
	return true
}

// becomeVoter returns when this member may vote. A learner answers nothing but
// its status, so it asks the others to promote it.
func (n *node) becomeVoter(ctx context.Context, endpoints []string) error {
	var status *clientv3.StatusResponse
	err := n.etcd.untilAnswered(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		status, err = client.Status(ctx, etcd.Local)
		return err
	})
	if err != nil || !status.IsLearner {
		return err
	}
	if endpoints == nil {
		if n.options.Server == "" {
			return errors.New("this server's etcd is a learner that was never promoted: give --server again")
		}
		if endpoints, err = n.askServers(ctx); err != nil {
			return err
		}
	}
	client, err := etcd.ClientOf(n.dirs, endpoints)
	if err != nil {
		return err
	}
	defer client.Close()
	return join.Until(ctx, "Waiting to be promoted in etcd", func() error {
		attempt, cancel := context.WithTimeout(ctx, changeLimit)
		defer cancel()
		_, err := client.MemberPromote(attempt, status.Header.MemberId)
		if errors.Is(err, rpctypes.ErrMemberNotLearner) {
			return nil // an attempt that seemed to fail had not
		}
		return err
	}, nil)
}

// clientURLs is where the voting members answer, for a server that joins.
func (e etcdMember) clientURLs(ctx context.Context) ([]string, error) {
	client, err := etcd.Client(e.Dirs)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	list, err := client.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("etcd is not ready: %w", err)
	}
	var urls []string
	for _, member := range list.Members {
		if !member.IsLearner {
			urls = append(urls, member.ClientURLs...)
		}
	}
	return urls, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
