package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/robfig/cron/v3"

	"k3nest.dev/k3nest/e2e/node-image/internal/etcd"
	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/process"
)

// resetCluster is `server --cluster-reset`: this node becomes the only member of
// etcd, with its own data or with a snapshot's, and the program ends
// (docs.k3s.io/cli/etcd-snapshot, "Restoring Snapshots").
func (n *node) resetCluster(ctx context.Context) error {
	_, err := os.Stat(n.dirs.ResetFlag())
	if err == nil && n.options.ClusterResetRestorePath == "" { // a snapshot may be restored again at once
		return fmt.Errorf("cluster-reset was successfully performed, please remove the cluster-reset flag and start k3s normally, "+
			"if you need to perform another cluster reset, you must first manually delete the %s file", n.dirs.ResetFlag())
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	args := append(n.etcd.args(), "--force-new-cluster")
	if snapshot := n.options.ClusterResetRestorePath; snapshot != "" {
		logging.Infof("Restoring the snapshot %s", snapshot)
		if err := etcd.Restore(n.dirs, snapshot, n.etcd.Name, n.etcd.peerURL()); err != nil {
			return err
		}
		args = n.etcd.args()
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
	if err := layout.Write(n.dirs.ResetFlag(), nil, 0o600); err != nil {
		return fmt.Errorf("note that the reset is done: %w", err)
	}
	logging.Infof("Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. " +
		"Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes")
	return nil
}

// becomeOnlyMember makes sure that the one member left has this node's address.
func (e etcdMember) becomeOnlyMember(ctx context.Context) error {
	members, err := e.members(ctx)
	if err != nil {
		return err
	}
	if len(members) != 1 {
		return fmt.Errorf("etcd still has %d members after the reset; read %s/etcd.log", len(members), layout.LogDir)
	}
	client, err := etcd.Client(e.Dirs)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.MemberUpdate(ctx, members[0].ID, []string{e.peerURL()}); err != nil {
		return fmt.Errorf("give the etcd member the address %s: %w", e.peerURL(), err)
	}
	return nil
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
