package options

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Help lists the flags of `k3s server` or `k3s agent`, apart by what becomes of
// them here, so that nobody takes an accepted flag for one that works.
func Help(command string, out io.Writer) {
	f := newFlags(command)
	f.addTheRest()
	(&Options{Command: command}).bind(f)

	names := map[string][]string{} // by first name, all of its names
	f.VisitAll(func(one *flag.Flag) {
		key := f.aliases[one.Name]
		names[key] = append(names[key], one.Name)
	})
	var effective, ignored, unbuilt []string
	for key, all := range names {
		line := f.describe(key, all)
		switch {
		case f.ignored[key]:
			ignored = append(ignored, line)
		case f.unbuilt[key]:
			unbuilt = append(unbuilt, line)
		default:
			effective = append(effective, line)
		}
	}
	fmt.Fprintf(out, "k3s %[1]s - in the offline node image of k3nest; docs.k3s.io/cli/%[1]s says what a flag means\n\n", command)
	fmt.Fprintf(out, "USAGE:\n   k3s %s [OPTIONS]\n", command)
	for _, section := range []struct {
		title string
		lines []string
	}{
		{"OPTIONS", append(effective, "--help, -h")},
		{"ACCEPTED, WITHOUT EFFECT IN THIS IMAGE", ignored},
		{"REFUSED, NOT BUILT IN THIS IMAGE", unbuilt},
	} {
		slices.Sort(section.lines)
		fmt.Fprintf(out, "\n%s:\n   %s\n", section.title, strings.Join(section.lines, "\n   "))
	}
}

// describe is a flag's line: its names, its default and its variable.
func (f *flags) describe(key string, names []string) string {
	found := f.Lookup(key)
	value := " value"
	if boolean, is := found.Value.(interface{ IsBoolFlag() bool }); is && boolean.IsBoolFlag() {
		value = ""
	}
	// The name that documentation calls it by is first, a shorthand last.
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) })
	for i, name := range names {
		names[i] = "--" + name + value
		if len(name) == 1 {
			names[i] = "-" + name + value
		}
	}
	line := strings.Join(names, ", ")
	if found.DefValue != "" && found.DefValue != "false" {
		line += fmt.Sprintf("  (default: %s)", found.DefValue)
	}
	if variable := f.environment[key]; variable != "" {
		line += "  [$" + variable + "]"
	}
	return line
}
