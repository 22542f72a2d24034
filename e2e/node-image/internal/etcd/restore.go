package etcd

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	etcdsnapshot "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
)

// Restore replaces this node's etcd data by a snapshot, as the only member of a
// new cluster. What was there is kept beside it.
func Restore(dirs layout.Dirs, snapshot, member, peerURL string) error {
	found, err := os.Stat(snapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("etcd: snapshot path does not exist: %s; `k3s etcd-snapshot ls` shows those that do", snapshot)
	}
	if err != nil {
		return fmt.Errorf("the snapshot of --cluster-reset-restore-path: %w", err)
	}
	if found.IsDir() {
		return fmt.Errorf("etcd: snapshot path must be a file, not a directory: %s", snapshot)
	}
	if strings.HasSuffix(snapshot, ".zip") {
		plain, err := uncompress(snapshot)
		if err != nil {
			return fmt.Errorf("unpack the snapshot %s: %w", snapshot, err)
		}
		defer os.RemoveAll(filepath.Dir(plain))
		snapshot = plain
	}
	old := fmt.Sprintf("%s-old-%d", dirs.EtcdData(), time.Now().Unix())
	if err := os.Rename(dirs.EtcdData(), old); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("put the present etcd data aside: %w", err)
	}
	err = etcdsnapshot.NewV3(zap.NewNop()).Restore(etcdsnapshot.RestoreConfig{
		SnapshotPath:        snapshot,
		Name:                member,
		OutputDataDir:       dirs.EtcdData(),
		PeerURLs:            []string{peerURL},
		InitialCluster:      member + "=" + peerURL,
		InitialClusterToken: "etcd-cluster",
	})
	if err != nil {
		os.RemoveAll(dirs.EtcdData())
		os.Rename(old, dirs.EtcdData())
		return fmt.Errorf("restore the snapshot %s: %w; the etcd data is as it was", snapshot, err)
	}
	return layout.Write(dirs.EtcdName(), []byte(member), 0o600)
}

func uncompress(archive string) (string, error) {
	reader, err := zip.OpenReader(archive)
	if err != nil {
		return "", err
	}
	defer reader.Close()
	if len(reader.File) != 1 {
		return "", fmt.Errorf("it holds %d files instead of one", len(reader.File))
	}
	content, err := reader.File[0].Open()
	if err != nil {
		return "", err
	}
	defer content.Close()
	dir, err := os.MkdirTemp(filepath.Dir(archive), ".restore-*")
	if err != nil {
		return "", err
	}
	plain, err := os.Create(filepath.Join(dir, "snapshot"))
	if err != nil {
		return "", err
	}
	defer plain.Close()
	_, err = io.Copy(plain, content)
	return plain.Name(), err
}
