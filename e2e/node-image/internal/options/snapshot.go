package options

import (
	"flag"
	"fmt"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
)

// ParseSnapshot reads the command line of `k3s etcd-snapshot SUBCOMMAND` and the
// same configuration files as the server; what they say to the server alone is
// passed over (docs.k3s.io/cli/etcd-snapshot).
func ParseSnapshot(args []string) (*Options, []string, error) {
	o := &Options{Command: "etcd-snapshot"}
	f := newFlags(o.Command)
	f.text(&o.Config, "config,c", "K3S_CONFIG_FILE", "")
	f.text(&o.DataDir, "data-dir,d", "K3S_DATA_DIR", layout.DefaultDataDir)
	f.text(&o.NodeName, "node-name", "K3S_NODE_NAME", "")
	f.text(&o.EtcdSnapshotName, "name", "", "on-demand")
	f.text(&o.EtcdSnapshotDir, "etcd-snapshot-dir,dir", "", "")
	f.boolean(&o.EtcdSnapshotCompress, "etcd-snapshot-compress,snapshot-compress", "", false)
	f.number(&o.EtcdSnapshotRetention, "etcd-snapshot-retention,snapshot-retention", 5)
	f.text(&o.Output, "output,o", "", "table")
	f.text(new(string), "etcd-server,s", "", "") // the etcd of this node is the only one asked
	f.text(new(string), "etcd-token,t", "", "")
	f.text(new(string), "log,l", "", "")
	f.boolean(&o.Debug, "debug", "K3S_DEBUG", false)

	fromFiles, err := fileArguments(configPath(args), f, true)
	if err != nil {
		return nil, nil, err
	}
	names, err := parseMixed(f.FlagSet, append(fromFiles, args...))
	if err != nil {
		return nil, nil, err
	}
	if err := f.applyEnvironment(); err != nil {
		return nil, nil, err
	}
	if o.EtcdSnapshotRetention < 0 {
		return nil, nil, fmt.Errorf("--snapshot-retention %d is less than none", o.EtcdSnapshotRetention)
	}
	return o, names, o.complete()
}

// parseMixed takes flags and names in any order, unlike Go's flag package, which
// stops at the first name.
func parseMixed(f *flag.FlagSet, args []string) (names []string, err error) {
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		if f.NArg() == 0 {
			return names, nil
		}
		names, args = append(names, f.Arg(0)), f.Args()[1:]
	}
}
