// Command runc-narrowed takes CAP_SYS_RESOURCE out of what runc is asked for and
// then becomes runc.
//
// On a host whose own bounding set lacks that capability nobody can hand it out,
// and runc fails a privileged container with "unable to apply caps". containerd
// is pointed at this program on such hosts only (internal/agent/containerd.go).
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	runc     = "/usr/sbin/runc"
	withheld = "CAP_SYS_RESOURCE"
)

func main() {
	if err := narrowArguments(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "runc-narrowed: %v\n", err)
		os.Exit(1)
	}
	err := syscall.Exec(runc, append([]string{runc}, os.Args[1:]...), os.Environ())
	fmt.Fprintf(os.Stderr, "runc-narrowed: run %s: %v\n", runc, err)
	os.Exit(1)
}

// narrowArguments finds the two files in which runc is told of capabilities: a
// bundle's config.json, and the process of an exec.
func narrowArguments(args []string) error {
	for i, arg := range args {
		name, value, inline := strings.Cut(arg, "=")
		if !inline && i+1 < len(args) {
			value = args[i+1]
		}
		switch name {
		case "--bundle", "-b":
			if err := narrow(filepath.Join(value, "config.json"), "process"); err != nil {
				return err
			}
		case "--process", "-p":
			if err := narrow(value, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// narrow rewrites one file; everything but the one capability stays as it was.
func narrow(file, key string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var document map[string]any
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber() // a large limit must not come back as a rounded float
	if err := decoder.Decode(&document); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	process := document
	if key != "" {
		process, _ = document[key].(map[string]any)
	}
	sets, _ := process["capabilities"].(map[string]any)
	changed := false
	for name, set := range sets {
		list, _ := set.([]any)
		for i, capability := range list {
			if capability == withheld {
				sets[name] = append(list[:i:i], list[i+1:]...)
				changed = true
				break
			}
		}
	}
	if !changed {
		return nil
	}
	narrowed, err := json.Marshal(document)
	if err != nil {
		return err
	}
	return os.WriteFile(file, narrowed, 0o600)
}
