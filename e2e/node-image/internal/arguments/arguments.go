// Package arguments merges the flags that a component gets from us with those
// that the user gave by --kubelet-arg and its like.
package arguments

import "strings"

// Merge puts the user's flags after ours. One that the user names replaces ours;
// `name+=value` is added to ours with a comma instead.
func Merge(ours []string, users []string) []string {
	named := map[string]bool{}
	var appended, replaced []string
	for _, user := range users {
		user = strings.TrimLeft(user, "-")
		name, value, _ := strings.Cut(user, "=")
		if name, plus := strings.CutSuffix(name, "+"); plus {
			appended = append(appended, name+"="+value)
			continue
		}
		named[name] = true
		replaced = append(replaced, "--"+user)
	}

	var merged []string
	for _, own := range ours {
		name, _, _ := strings.Cut(strings.TrimLeft(own, "-"), "=")
		if !named[name] {
			merged = append(merged, own)
		}
	}
	merged = append(merged, replaced...)
	for _, addition := range appended {
		merged = extend(merged, addition)
	}
	return merged
}

func extend(merged []string, addition string) []string {
	name, value, _ := strings.Cut(addition, "=")
	for i := len(merged) - 1; i >= 0; i-- {
		if strings.HasPrefix(merged[i], "--"+name+"=") {
			merged[i] += "," + value
			return merged
		}
	}
	return append(merged, "--"+addition)
}
