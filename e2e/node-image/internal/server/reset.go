package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/robfig/cron/v3"
	clientv3 "go.etcd.io/etcd/client/v3"

	"k3nest.dev/k3nest/e2e/node-image/internal/etcd"
	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/process"
)

// resetCluster is `server --cluster-reset`: this node becomes the only member of
// etcd, with its own data or with a snapshot's, and the program ends
// (docs.k3s.io/cli/etcd-snapshot, "Restoring Snapshots").
func (n *node) resetCluster(ctx context.Context) error {
	snapshot := n.options.ClusterResetRestorePath
	if exists(n.dirs.ResetFlag()) && snapshot == "" { // a snapshot may be restored again at once
		return fmt.Errorf("Managed etcd cluster membership was previously reset, please remove the cluster-reset flag and start k3s normally. "+
			"If you need to perform another cluster reset, you must first manually delete the file at %s", n.dirs.ResetFlag())
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := n.etcd.rename(); err != nil {
		return err
	}
	args := n.etcd.args()
	if snapshot == "" {
		args = append(args, "--force-new-cluster")
		if err := n.etcd.writeName(); err != nil {
			return err
		}
	} else {
		logging.Infof("Restoring the snapshot %s", snapshot)
		if err := etcd.Restore(n.dirs, snapshot, n.etcd.Name, n.etcd.peerURL()); err != nil {
			return err
		}
	}
	// Before the reset, as k3s has it: one that is cut off leaves the flag, too.
	if err := layout.Write(n.dirs.ResetFlag(), nil, 0o600); err != nil {
		return fmt.Errorf("note that there was a reset: %w", err)
	}
	if _, err := n.group.Component(process.Store, "etcd", args); err != nil {
		return err
	}
	ready := make(chan error, 1)
	go func() { ready <- n.etcd.becomeOnlyMember(ctx) }()
	var failure error
	select {
	case failure = <-ready:
	case failure = <-n.group.Failed():
	}
	n.group.Stop()
	if failure != nil {
		return failure
	}
	logging.Infof("Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. " +
		"Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes")
	return nil
}

// becomeOnlyMember waits until the one member left is this node, by its new name
// and at its address.
func (e etcdMember) becomeOnlyMember(ctx context.Context) error {
	return e.untilAnswered(ctx, func(ctx context.Context, client *clientv3.Client) error {
		list, err := client.MemberList(ctx)
		if err != nil {
			return err
		}
		if len(list.Members) != 1 {
			return fmt.Errorf("it still has %d members after the reset", len(list.Members))
		}
		member := list.Members[0]
		if !slices.Equal(member.PeerURLs, []string{e.peerURL()}) {
			if _, err := client.MemberUpdate(ctx, member.ID, []string{e.peerURL()}); err != nil {
				return fmt.Errorf("give the member the address %s: %w", e.peerURL(), err)
			}
		}
		if member.Name != e.Name {
			return fmt.Errorf("the member is still called %s", member.Name)
		}
		return nil
	})
}

// endReset tells whether the run before was a reset; a normal start ends it.
func endReset(dirs layout.Dirs) (wasReset bool, err error) {
	err = os.Remove(dirs.ResetFlag())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("remove the note of the last cluster reset: %w", err)
	}
	return err == nil, nil
}

// scheduleSnapshots saves and prunes by --etcd-snapshot-schedule-cron.
func (n *node) scheduleSnapshots(ctx context.Context) {
	o := n.options
	if o.EtcdDisableSnapshots {
		return
	}
	schedule, err := cron.ParseStandard(o.EtcdSnapshotScheduleCron)
	if err != nil {
		n.group.Fail(fmt.Errorf("--etcd-snapshot-schedule-cron %q: %w", o.EtcdSnapshotScheduleCron, err))
		return
	}
	snapshots := etcd.Snapshots{Dirs: n.dirs, Dir: o.EtcdSnapshotDir, NodeName: o.NodeName, Compress: o.EtcdSnapshotCompress}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(schedule.Next(time.Now()))):
		}
		name, err := snapshots.Save(ctx, o.EtcdSnapshotName)
		if err != nil {
			logging.Errorf("Failed to take the scheduled etcd snapshot: %v", err)
			continue
		}
		logging.Infof("Snapshot %s saved.", name)
		if o.EtcdSnapshotRetention < 1 {
			continue // 0 keeps them all
		}
		if _, err := snapshots.Prune(o.EtcdSnapshotName, o.EtcdSnapshotRetention); err != nil {
			logging.Errorf("Failed to apply the snapshot retention: %v", err)
		}
	}
}
