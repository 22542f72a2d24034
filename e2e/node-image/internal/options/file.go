package options

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// configPath finds the configuration file before the flags are parsed, since
// what it holds is parsed as flags too.
func configPath(args []string) string {
	for i, arg := range args {
		name, value, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || (name != "config" && name != "c") {
			continue
		}
		if inline {
			return value
		}
		if i+1 < len(args) {
			return args[i+1]
		}
	}
	if path := os.Getenv("K3S_CONFIG_FILE"); path != "" {
		return path
	}
	return layout.ConfigFile
}

// fileArguments turns config.yaml and config.yaml.d/*.yaml into flags. A later
// file replaces a key of an earlier one, and `key+` appends to it.
func fileArguments(path string, f *flags, quiet bool) ([]string, error) {
	dropIns, err := filepath.Glob(path + ".d/*")
	if err != nil {
		return nil, fmt.Errorf("list %s.d: %w", path, err)
	}
	sort.Strings(dropIns)

	values := map[string][]string{}
	for _, file := range append([]string{path}, dropIns...) {
		if file != path && !strings.HasSuffix(file, ".yaml") && !strings.HasSuffix(file, ".yml") {
			continue
		}
		if err := mergeFile(file, values); err != nil {
			return nil, err
		}
	}
	return asArguments(values, f, quiet), nil
}

func mergeFile(file string, values map[string][]string) error {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the configuration file: %w", err)
	}
	var document map[string]any
	if err := yaml.Unmarshal(content, &document); err != nil {
		return fmt.Errorf("configuration file %s is not a YAML mapping of flags to values: %w", file, err)
	}
	for key, value := range document {
		texts := asTexts(value)
		if name, appends := strings.CutSuffix(key, "+"); appends {
			values[name] = append(values[name], texts...)
		} else {
			values[key] = texts
		}
	}
	return nil
}

func asTexts(value any) []string {
	switch value := value.(type) {
	case nil:
		return nil
	case []any:
		var texts []string
		for _, item := range value {
			texts = append(texts, asTexts(item)...)
		}
		return texts
	case float64: // every number of the file; 6443 must not become 6.443e+03
		return []string{strconv.FormatFloat(value, 'f', -1, 64)}
	default:
		return []string{fmt.Sprint(value)}
	}
}

func asArguments(values map[string][]string, f *flags, quiet bool) []string {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)

	var args []string
	for _, key := range keys {
		if f.Lookup(key) == nil {
			if quiet {
				continue // it is for `k3s server`, which reads the same files
			}
			logging.Warnf("Unknown flag --%s found in config file, skipping", key)
			continue
		}
		for _, value := range values[key] {
			args = append(args, "--"+key+"="+value)
		}
	}
	return args
}
