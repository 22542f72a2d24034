package server

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// A member that etcd has removed ends, and what it has is of no more use. k3s marks
// it by a file, the tombstone, and begins anew at its next start: it joins by
// --server as another member, and without --server it founds a cluster of its own
// (pkg/etcd/etcd.go and pkg/daemons/executor).

// bury marks etcd's data if it was a removed member's that died.
func bury(dirs layout.Dirs) {
	const farewell = "the member has been permanently removed from the cluster"
	log, err := os.ReadFile(filepath.Join(layout.LogDir, "etcd.log"))
	if err != nil || !bytes.Contains(log, []byte(farewell)) {
		return
	}
	if err := layout.Write(dirs.Tombstone(), nil, 0o600); err != nil {
		logging.Errorf("Failed to write tombstone file to %s: %v", dirs.Tombstone(), err)
		return
	}
	logging.Infof("This node has been removed from the cluster - please restart k3s to rejoin the cluster")
}

// buryRemoved puts data with a tombstone aside.
func buryRemoved(dirs layout.Dirs) error {
	if !exists(dirs.Tombstone()) {
		return nil
	}
	logging.Infof("tombstone file has been detected, removing data dir to rejoin the cluster")
	if err := os.Rename(dirs.EtcdData(), fmt.Sprintf("%s-old-%d", dirs.EtcdData(), time.Now().Unix())); err != nil {
		return fmt.Errorf("put the data of the removed etcd member aside: %w", err)
	}
	return nil
}
