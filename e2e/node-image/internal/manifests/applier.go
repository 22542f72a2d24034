// Package manifests applies what lies in server/manifests, the packaged
// components first among it (docs.k3s.io/installation/packaged-components,
// "Auto-Deploying Manifests (AddOns)").
package manifests

import (
	"context"
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/process"
)

const (
	pollEvery  = 2 * time.Second
	retryAfter = 5 * time.Second
)

// Applier applies each file when it appears and whenever it changes. A file
// that goes away leaves its resources, as k3s documents.
type Applier struct {
	Dir        string
	Kubeconfig string
	NodeName   string

	applied map[string][sha256.Size]byte
	retryAt map[string]time.Time
}

// Run polls: files come by `docker cp`, by volumes and by hand, and a change is
// wanted within seconds.
func (a *Applier) Run(ctx context.Context) {
	a.applied = map[string][sha256.Size]byte{}
	a.retryAt = map[string]time.Time{}
	for {
		a.pass(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-time.After(pollEvery):
		}
	}
}

func (a *Applier) pass(ctx context.Context, now time.Time) {
	filepath.WalkDir(a.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && isManifest(path) {
			a.consider(ctx, path, now)
		}
		return nil // a file that vanished between two looks is nothing to stop for
	})
}

// isManifest leaves out drafts (hidden files) and what a .skip file holds back.
func isManifest(path string) bool {
	name := filepath.Base(path)
	if strings.HasPrefix(name, ".") {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
	default:
		return false
	}
	_, err := os.Stat(path + ".skip")
	return err != nil
}

func (a *Applier) consider(ctx context.Context, path string, now time.Time) {
	content, err := os.ReadFile(path)
	if err != nil || len(strings.TrimSpace(string(content))) == 0 {
		return
	}
	sum := sha256.Sum256(content)
	if a.applied[path] == sum || now.Before(a.retryAt[path]) {
		return
	}
	if err := a.apply(path); err != nil {
		a.retryAt[path] = now.Add(retryAfter)
		if ctx.Err() != nil {
			return // the API went before us
		}
		logging.Errorf("Failed to apply manifest %s: %v", path, err)
		return
	}
	a.applied[path] = sum
	delete(a.retryAt, path)
	logging.Infof("Applied manifest %s", path)
}

func (a *Applier) apply(path string) error {
	_, err := process.Output("kubectl", []string{"/bin/k3s", "kubectl", "--kubeconfig", a.Kubeconfig,
		"apply", "--server-side", "--force-conflicts", "--field-manager=deploy@" + a.NodeName, "-f", path}, nil)
	return err
}
