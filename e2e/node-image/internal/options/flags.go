package options

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// flags is Go's flag set, whose error for an unknown flag ("flag provided but
// not defined: -foo") is the one that users of k3s know.
type flags struct {
	*flag.FlagSet
	environment map[string]string // flag -> variable
	aliases     map[string]string // shorthand -> flag
	unbuilt     map[string]bool
	ignored     map[string]bool
}

func newFlags(command string) *flags {
	f := &flags{
		FlagSet:     flag.NewFlagSet(command, flag.ContinueOnError),
		environment: map[string]string{},
		aliases:     map[string]string{},
		unbuilt:     map[string]bool{},
		ignored:     map[string]bool{},
	}
	f.SetOutput(io.Discard)
	return f
}

// addTheRest names k3s's other flags of server and agent (accepted.go).
func (f *flags) addTheRest() {
	for _, name := range acceptedBooleans {
		f.boolean(new(bool), name, "", false)
		f.ignored[name] = true
	}
	for _, names := range acceptedTexts {
		f.list(new([]string), names, whole)
		f.ignored[first(names)] = true
	}
	for _, name := range unbuiltBooleans {
		f.boolean(new(bool), name, "", false)
		f.unbuilt[name] = true
	}
	for _, names := range unbuiltTexts {
		f.list(new([]string), names, whole)
		f.unbuilt[first(names)] = true
	}
}

func (f *flags) text(target *string, names, variable, value string) {
	*target = value
	f.define(names, variable, func(name string) { f.StringVar(target, name, value, "") })
}

func (f *flags) boolean(target *bool, names, variable string, value bool) {
	*target = value
	f.define(names, variable, func(name string) { f.BoolVar(target, name, value, "") })
}

func (f *flags) number(target *int, names string, value int) {
	*target = value
	f.define(names, "", func(name string) { f.IntVar(target, name, value, "") })
}

func (f *flags) list(target *[]string, names string, split func(string) []string) {
	f.define(names, "", func(name string) { f.Var(&listValue{target, split}, name, "") })
}

func (f *flags) define(names, variable string, define func(string)) {
	for _, name := range strings.Split(names, ",") {
		define(name)
		f.aliases[name] = first(names)
	}
	if variable != "" {
		f.environment[first(names)] = variable
	}
}

func first(names string) string {
	name, _, _ := strings.Cut(names, ",")
	return name
}

// listValue collects a repeated flag in the order it was given.
type listValue struct {
	target *[]string
	split  func(string) []string
}

func (l *listValue) String() string { return "" }

func (l *listValue) Set(value string) error {
	*l.target = append(*l.target, l.split(value)...)
	return nil
}

// commas is for flags whose values never hold a comma themselves.
func commas(value string) []string {
	var parts []string
	for _, part := range strings.Split(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// whole is for flags that are passed on as they are.
func whole(value string) []string { return []string{value} }

// given lists the flags that were set, by their first name.
func (f *flags) given() map[string]bool {
	set := map[string]bool{}
	f.Visit(func(one *flag.Flag) { set[f.aliases[one.Name]] = true })
	return set
}

// applyEnvironment sets what neither the command line nor a file has set.
func (f *flags) applyEnvironment() error {
	given := f.given()
	for name, variable := range f.environment {
		value, present := os.LookupEnv(variable)
		if !present || value == "" || given[name] {
			continue
		}
		if err := f.Set(name, value); err != nil {
			return fmt.Errorf("environment variable %s=%s: %w", variable, strconv.Quote(value), err)
		}
	}
	return nil
}
