package manifests

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
)

// CoreDNSImage is in the image (build.sh) and loaded at the first start.
const CoreDNSImage = "k3nest-offline/coredns:1.14.3"

//go:embed coredns.yaml
var coreDNS string

// CoreDNS is what the packaged manifest depends on.
type CoreDNS struct {
	ClusterDomain string
	ClusterDNS    string
	NodeHosts     []string // "address name", one for each node
	Image         string
}

// Write renders server/manifests/coredns.yaml.
func (c CoreDNS) Write(dir string) error {
	c.Image = CoreDNSImage
	var rendered bytes.Buffer
	if err := template.Must(template.New("coredns").Parse(coreDNS)).Execute(&rendered, c); err != nil {
		return fmt.Errorf("render coredns.yaml: %w", err)
	}
	return layout.Write(filepath.Join(dir, "coredns.yaml"), rendered.Bytes(), 0o600)
}

// RemoveCoreDNS is what --disable=coredns does to an earlier start's file; the
// caller deletes what it had made.
func RemoveCoreDNS(dir string) (wasThere bool) {
	return os.Remove(filepath.Join(dir, "coredns.yaml")) == nil
}
