package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// docker runs the Docker command line. It is used instead of the API so that
// the test asks exactly what a person would type to check a row.
func docker(ctx context.Context, args ...string) (string, error) {
	return dockerWith(ctx, nil, args...)
}

func dockerWith(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	out, code, err := run(ctx, stdin, args...)
	if err != nil {
		return out, err
	}
	if code != 0 {
		return out, fmt.Errorf("docker %s: exit code %d: %s", strings.Join(args, " "), code, strings.TrimSpace(out))
	}
	return strings.TrimSpace(out), nil
}

// run returns both streams together and the exit code; the error is kept for
// what never ran or did not end in time.
func run(ctx context.Context, stdin io.Reader, args ...string) (string, int, error) {
	var out bytes.Buffer
	command := exec.CommandContext(ctx, "docker", args...)
	command.Stdin, command.Stdout, command.Stderr = stdin, &out, &out
	// A child of the command may hold the pipes open after it was killed.
	command.WaitDelay = time.Second
	err := command.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return out.String(), -1, fmt.Errorf("docker %s: %w", strings.Join(args, " "), ctx.Err())
	case errors.As(err, &exit):
		return out.String(), exit.ExitCode(), nil
	case err != nil:
		return out.String(), -1, err
	}
	return out.String(), 0, nil
}

// pipeImage copies an image from Docker into a node's containerd without a
// file in between.
func pipeImage(ctx context.Context, image, node string) (string, int, error) {
	reader, writer := io.Pipe()
	save := exec.CommandContext(ctx, "docker", "save", image)
	save.Stdout = writer
	go func() { writer.CloseWithError(save.Run()) }()
	return run(ctx, reader, "exec", "-i", node, "ctr", "-n", "k8s.io", "image", "import", "-")
}

const runLabel = "k3nest.dev/contract-run"

// sweep removes everything that this run created, and nothing else. It has a
// context of its own because it runs after an interrupt, too.
func sweep(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	filter := "label=" + runLabel + "=" + id
	for _, kind := range []struct {
		list   []string
		remove []string
	}{
		{[]string{"ps", "-aq", "--filter", filter}, []string{"rm", "-f", "-v"}},
		{[]string{"network", "ls", "-q", "--filter", filter}, []string{"network", "rm"}},
		{[]string{"volume", "ls", "-q", "--filter", filter}, []string{"volume", "rm", "-f"}},
	} {
		found, err := docker(ctx, kind.list...)
		if err != nil || found == "" {
			continue
		}
		if _, err := docker(ctx, append(kind.remove, strings.Fields(found)...)...); err != nil {
			fmt.Println("clean-up:", err)
		}
	}
}
