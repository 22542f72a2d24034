package etcd

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
)

// Snapshots is the directory of snapshots of one node
// (docs.k3s.io/cli/etcd-snapshot).
type Snapshots struct {
	Dirs     layout.Dirs
	Dir      string
	NodeName string
	Compress bool
}

// Snapshot is one file of it.
type Snapshot struct {
	Name     string    `json:"name"`
	Location string    `json:"location"`
	Size     int64     `json:"size"`
	Created  time.Time `json:"createdAt"`
}

// Save names the file as k3s does: PREFIX-NODE-SECONDS.
func (s Snapshots) Save(ctx context.Context, prefix string) (name string, err error) {
	client, err := Client(s.Dirs)
	if err != nil {
		return "", err
	}
	defer client.Close()
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return "", fmt.Errorf("make the snapshot directory: %w", err)
	}
	draft, err := os.CreateTemp(s.Dir, ".snapshot-*")
	if err != nil {
		return "", fmt.Errorf("begin a snapshot: %w", err)
	}
	defer os.Remove(draft.Name())
	defer draft.Close()

	content, err := client.Snapshot(ctx)
	if err != nil {
		return "", fmt.Errorf("ask etcd for a snapshot: %w", err)
	}
	defer content.Close()

	name = fmt.Sprintf("%s-%s-%d", prefix, s.NodeName, time.Now().Unix())
	file := name
	if s.Compress {
		file += ".zip"
		err = compress(draft, name, content)
	} else {
		_, err = io.Copy(draft, content)
	}
	if err := errors.Join(err, draft.Sync()); err != nil {
		return "", fmt.Errorf("write the snapshot %s: %w", name, err)
	}
	return file, os.Rename(draft.Name(), filepath.Join(s.Dir, file))
}

func compress(target io.Writer, name string, content io.Reader) error {
	archive := zip.NewWriter(target)
	entry, err := archive.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(entry, content)
	return errors.Join(err, archive.Close())
}

// List is sorted from the oldest to the newest.
func (s Snapshots) List() ([]Snapshot, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	var found []Snapshot
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		found = append(found, Snapshot{
			Name:     entry.Name(),
			Location: "file://" + filepath.Join(s.Dir, entry.Name()),
			Size:     info.Size(),
			Created:  info.ModTime().UTC(),
		})
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i].Created.Before(found[j].Created) })
	return found, nil
}

func (s Snapshots) Delete(name string) error {
	if name != filepath.Base(name) {
		return fmt.Errorf("%q is not the name of a snapshot; `k3s etcd-snapshot ls` lists them", name)
	}
	if err := os.Remove(filepath.Join(s.Dir, name)); err != nil {
		return fmt.Errorf("delete the snapshot %s: %w", name, err)
	}
	return nil
}

// Prune keeps the newest ones of this node with this prefix and returns the
// names of those it deleted.
func (s Snapshots) Prune(prefix string, keep int) ([]string, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	var own []Snapshot
	for _, snapshot := range all {
		if strings.HasPrefix(snapshot.Name, prefix+"-"+s.NodeName+"-") {
			own = append(own, snapshot)
		}
	}
	var deleted []string
	for len(own) > keep {
		if err := s.Delete(own[0].Name); err != nil {
			return deleted, err
		}
		deleted = append(deleted, own[0].Name)
		own = own[1:]
	}
	return deleted, nil
}
