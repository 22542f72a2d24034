package options

import (
	"fmt"
	"sort"
	"strings"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// Parse reads the configuration files, then the command line, then the
// environment. A plain flag of the command line wins over the file, a repeatable
// one adds to it (docs.k3s.io/installation/configuration, "Configuration File").
func Parse(command string, args []string) (*Options, error) {
	o := &Options{Command: command}
	f := newFlags(command)
	f.addTheRest()
	o.bind(f)

	fromFiles, err := fileArguments(configPath(args), f, false)
	if err != nil {
		return nil, err
	}
	o.Args = append(fromFiles, args...)
	if err := f.Parse(o.Args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("k3s %s does not take arguments, but was given %q", command, f.Args())
	}
	if err := f.applyEnvironment(); err != nil {
		return nil, err
	}
	if err := refuseUnbuilt(f); err != nil {
		return nil, err
	}
	return o, o.complete()
}

func refuseUnbuilt(f *flags) error {
	var names []string
	for name := range f.given() {
		switch {
		case f.unbuilt[name]:
			names = append(names, "--"+name)
		case f.ignored[name]:
			logging.Debugf("--%s has no effect in the offline node image", name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	sort.Strings(names)
	return fmt.Errorf("%s: a flag of k3s that k3nest's offline node image has not built; leave it out or use rancher/k3s",
		strings.Join(names, ", "))
}
