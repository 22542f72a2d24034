package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"sigs.k8s.io/yaml"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/options"
)

// Command is `k3s etcd-snapshot`.
func Command(args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to do: k3s etcd-snapshot save|ls|delete|prune")
	}
	o, names, err := options.ParseSnapshot(args[1:])
	if err != nil {
		return err
	}
	s := Snapshots{Dirs: o.Dirs(), Dir: o.EtcdSnapshotDir, NodeName: o.NodeName, Compress: o.EtcdSnapshotCompress}
	switch args[0] {
	case "save":
		return save(s, o.EtcdSnapshotName, names)
	case "ls", "list", "l":
		return list(s, o.Output, out)
	case "delete":
		if len(names) == 0 {
			return fmt.Errorf("no snapshots given for removal: k3s etcd-snapshot delete NAME...")
		}
		for _, name := range names {
			if err := s.Delete(name); err != nil {
				return err
			}
			logging.Infof("Snapshot %s deleted.", name)
		}
		return nil
	case "prune":
		deleted, err := s.Prune(o.EtcdSnapshotName, o.EtcdSnapshotRetention)
		for _, name := range deleted {
			logging.Infof("Snapshot %s deleted.", name)
		}
		return err
	}
	return fmt.Errorf("k3s etcd-snapshot does not know %q: use save, ls, delete or prune", args[0])
}

func save(s Snapshots, prefix string, names []string) error {
	if len(names) > 0 {
		return fmt.Errorf("this command does not take any arguments; name the snapshot with --name")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	name, err := s.Save(ctx, prefix)
	if err == nil {
		logging.Infof("Snapshot %s saved.", name)
	}
	return err
}

func list(s Snapshots, format string, out io.Writer) error {
	found, err := s.List()
	if err != nil {
		return err
	}
	switch format {
	case "json":
		return json.NewEncoder(out).Encode(found)
	case "yaml":
		text, err := yaml.Marshal(found)
		out.Write(text)
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprint(table, "Name\tLocation\tSize\tCreated\n")
	for _, one := range found {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", one.Name, one.Location, one.Size, one.Created.Format(time.RFC3339))
	}
	return table.Flush()
}
