package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A node is the one container that a group of rows looks at. Its name, address
// and volumes outlive the container, because a part of the contract is what a
// node finds again when its container was replaced.
type node struct {
	suite   *suite
	dir     string            // groups/NAME: args, env, root/
	name    string            // container, host name
	ip      string            // pinned
	facts   map[string]string // what {placeholders} stand for
	stopped time.Duration     // how long the last stop took
	fresh   bool              // its volumes were never started on
	first   *node             // the group's own node, whose API it is asked of
	others  map[string]*node  // the further nodes of the group's cluster
}

// published are the ports that rows connect to. They are published on random
// ports of 127.0.0.1, so that the test also runs where containers' addresses
// cannot be reached from outside.
var published = []string{"6443", "6550", "10250", "2379"}

func newNode(s *suite, group string, number int) *node {
	name := fmt.Sprintf("contract-%s-%s", s.id, group)
	ip := fmt.Sprintf("%s.%d", s.subnet, 10+number)
	n := &node{
		suite: s, name: name, ip: ip, fresh: true, others: map[string]*node{},
		dir: filepath.Join(s.groupsDir, group),
		facts: map[string]string{
			"node": name, "ip": ip, "version": s.version, "tools": s.tools,
		},
	}
	n.first = n
	n.addOthers()
	return n
}

// addOthers makes a further node of each directory of the group that has
// arguments. All nodes of a group know of each other: {NAME} and {NAME.ip}.
func (n *node) addOthers() {
	found, err := filepath.Glob(filepath.Join(n.dir, "*", "args"))
	if err != nil {
		return // only a malformed pattern, which this is not
	}
	for i, args := range found {
		short := filepath.Base(filepath.Dir(args))
		other := &node{
			suite: n.suite, name: n.name + "-" + short, fresh: true, first: n,
			ip:    fmt.Sprintf("%s.%d", n.suite.subnet, 100+i),
			dir:   filepath.Dir(args),
			facts: map[string]string{"first": n.name, "first.ip": n.ip},
		}
		n.others[short] = other
		n.facts[short], n.facts[short+".ip"] = other.name, other.ip
	}
	for _, other := range n.others {
		for key, value := range n.facts {
			other.facts[key] = value
		}
		other.facts["node"], other.facts["ip"] = other.name, other.ip
	}
}

// named is the node that a row or step is about.
func (n *node) named(short string) (*node, error) {
	if short == "" {
		return n, nil
	}
	if other := n.others[short]; other != nil {
		return other, nil
	}
	return nil, fmt.Errorf("the group has no node %q", short)
}

func (n *node) fill(text string) string {
	for key, value := range n.facts {
		text = strings.ReplaceAll(text, "{"+key+"}", value)
	}
	return text
}

func (n *node) fillPattern(text string) string {
	for key, value := range n.facts {
		text = strings.ReplaceAll(text, "{"+key+"}", regexp.QuoteMeta(value))
	}
	return text
}

// perform brings the node where the rows of a stage expect it.
func (n *node) perform(ctx context.Context, step string) error {
	verb, rest, _ := strings.Cut(n.fill(step), " ")
	switch verb {
	case "begin", "then":
		return nil
	case "idle":
		return n.idle(ctx)
	case "start":
		return n.start(ctx, nil)
	case "ready":
		return n.waitReady(ctx)
	case "restart":
		_, err := docker(ctx, "restart", "-t", "30", n.name)
		return err
	case "stop":
		began := time.Now()
		_, err := docker(ctx, "stop", "-t", "30", n.name)
		n.stopped = time.Since(began)
		return err
	case "on":
		short, rest, _ := strings.Cut(rest, " ")
		other, err := n.named(short)
		if err != nil {
			return err
		}
		return other.perform(ctx, rest)
	case "recreate":
		return n.start(ctx, nil)
	case "replace":
		return n.replace(ctx)
	case "discard":
		return n.discard(ctx, rest)
	case "once":
		if err := n.start(ctx, strings.Fields(rest)); err != nil {
			return err
		}
		return n.waitExit(ctx, 90*time.Second)
	case "run":
		return n.poll(ctx, patience, func() error {
			_, err := docker(ctx, "exec", n.name, "sh", "-c", rest)
			return err
		})
	case "remember":
		return n.remember(ctx, rest)
	case "import":
		out, code, err := pipeImage(ctx, rest, n.name)
		if err == nil && code != 0 {
			err = fmt.Errorf("ctr image import: exit code %d: %s", code, out)
		}
		return err
	}
	return fmt.Errorf("unknown step %q", verb)
}

// remember keeps what a command prints for later rows. If it fails, the rows
// that need it fail by themselves; the others are looked at all the same.
func (n *node) remember(ctx context.Context, rest string) error {
	name, command, _ := strings.Cut(rest, " ")
	n.facts[name] = "nothing-was-remembered"
	_ = n.poll(ctx, patience/3, func() error {
		out, err := docker(ctx, "exec", n.name, "sh", "-c", command)
		if err == nil && out != "" {
			n.facts[name], _, _ = strings.Cut(out, "\n")
			return nil
		}
		return fmt.Errorf("%q printed nothing (%w)", command, err)
	})
	return ctx.Err()
}

// idle runs the image without k3s, for rows about the image and its commands.
func (n *node) idle(ctx context.Context) error {
	args := append(n.common(), "--entrypoint", "/bin/sh", n.suite.image,
		"-c", "trap 'exit 0' SIGTERM; while :; do sleep 1; done")
	if _, err := docker(ctx, append([]string{"create"}, args...)...); err != nil {
		return err
	}
	_, err := docker(ctx, "start", n.name)
	return err
}

// start replaces the container by a new one on the same volumes.
func (n *node) start(ctx context.Context, extra []string) error {
	// The name may be free; what counts is that it is afterwards.
	_, _ = docker(ctx, "rm", "-f", "-v", n.name)

	args := append([]string{"create"}, n.common()...)
	for _, volume := range []struct{ suffix, path string }{
		{"data", "/var/lib/rancher/k3s"},
		// Not a volume of the image, but the node's password lives there.
		{"node", "/etc/rancher/node"},
	} {
		name := n.name + "-" + volume.suffix
		if n.fresh {
			if _, err := docker(ctx, "volume", "create", "--label", runLabel+"="+n.suite.id, name); err != nil {
				return err
			}
		}
		args = append(args, "-v", name+":"+volume.path)
	}
	for _, port := range published {
		args = append(args, "-p", "127.0.0.1::"+port)
	}
	for _, variable := range n.lines("env") {
		args = append(args, "-e", variable)
	}
	args = append(args, n.suite.image)
	args = append(args, n.lines("args")...)
	if _, err := docker(ctx, append(args, extra...)...); err != nil {
		return err
	}
	if err := n.copyRoot(ctx); err != nil {
		return err
	}
	_, err := docker(ctx, "start", n.name)
	n.fresh = false
	return err
}

// replace starts a machine of the same name and address that remembers nothing.
func (n *node) replace(ctx context.Context) error {
	_, _ = docker(ctx, "rm", "-f", "-v", n.name)
	if _, err := docker(ctx, "volume", "rm", "-f", n.name+"-data", n.name+"-node"); err != nil {
		return err
	}
	n.fresh = true
	return n.start(ctx, nil)
}

// discard removes a path below the data directory, whether the node runs or not.
func (n *node) discard(ctx context.Context, path string) error {
	_, err := docker(ctx, "run", "--rm", "--label", runLabel+"="+n.suite.id, "-v", n.name+"-data:/data",
		"--entrypoint", "/bin/sh", n.suite.image, "-c", "rm -rf /data/"+path)
	return err
}

func (n *node) common() []string {
	args := []string{
		"--name", n.name, "--hostname", n.name,
		"--label", runLabel + "=" + n.suite.id,
		"--network", n.suite.network, "--ip", n.ip,
		"--privileged", "--userns", "host",
		"--tmpfs", "/run", "--tmpfs", "/var/run",
	}
	if n.suite.runtime != "" {
		args = append(args, "--runtime", n.suite.runtime)
	}
	return args
}

// copyRoot copies the group's root/ into the container. What lies on volumes
// is copied once: a second time would undo what rows did to it.
func (n *node) copyRoot(ctx context.Context) error {
	for _, top := range []string{"etc", "var"} {
		source := filepath.Join(n.dir, "root", top)
		if _, err := os.Stat(source); err != nil || (top == "var" && !n.fresh) {
			continue
		}
		if _, err := docker(ctx, "cp", source, n.name+":/"); err != nil {
			return err
		}
	}
	images := filepath.Join(n.dir, "import-at-start")
	if _, err := os.Stat(images); err != nil || !n.fresh {
		return nil
	}
	// As a tree, because docker cp does not create the directories above a file.
	tree := filepath.Join(n.suite.scratch, "var")
	directory := filepath.Join(tree, "lib/rancher/k3s/agent/images")
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	if _, err := docker(ctx, "save", "-o", filepath.Join(directory, "tools.tar"), n.suite.tools); err != nil {
		return err
	}
	_, err := docker(ctx, "cp", tree, n.name+":/")
	return err
}

// lines reads a file of the group that holds one argument or variable a line.
func (n *node) lines(file string) []string {
	content, err := os.ReadFile(filepath.Join(n.dir, file))
	if err != nil {
		return nil
	}
	var lines []string
	for _, line := range strings.Split(string(content), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, n.fill(line))
		}
	}
	return lines
}

func (n *node) waitReady(ctx context.Context) error {
	const readiness = `{range .items[*].status.conditions[?(@.type=="Ready")]}{.status}{end}`
	return n.poll(ctx, 2*time.Minute, func() error {
		state, err := docker(ctx, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", n.name)
		if err == nil && !strings.HasPrefix(state, "running") {
			return permanent{fmt.Errorf("the container is not running: %s", state)}
		}
		ask := []string{"exec", n.first.name, "kubectl", "get", "nodes", "-o", "jsonpath=" + readiness}
		if len(n.first.others) > 0 { // of several nodes, this one
			ask = append(ask, "--field-selector", "metadata.name="+n.name)
		}
		out, err := docker(ctx, ask...)
		if err == nil && out != "True" {
			err = fmt.Errorf("the Node is not Ready: %q", out)
		}
		return err
	})
}

func (n *node) waitExit(ctx context.Context, within time.Duration) error {
	return n.poll(ctx, within, func() error {
		state, err := docker(ctx, "inspect", "-f", "{{.State.Status}}", n.name)
		if err == nil && state == "running" {
			err = fmt.Errorf("still running")
		}
		return err
	})
}

// permanent is an error that waiting does not mend.
type permanent struct{ error }

// poll tries until it works, the time is up or waiting has no sense any more.
func (n *node) poll(ctx context.Context, within time.Duration, try func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if _, final := err.(permanent); final || ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %w", within, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (n *node) logTail(ctx context.Context, lines int) string {
	out, _, err := run(ctx, nil, "logs", "--tail", fmt.Sprint(lines), n.name)
	if err != nil {
		return err.Error()
	}
	return out
}
