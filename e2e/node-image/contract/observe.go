package main

import (
	"archive/tar"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"time"
)

// attempt bounds one look, so that a row's own time allows more than one.
const attempt = 20 * time.Second

// observe looks once. An error means that it could not look; it is shown like
// any other observation, as the reason why the row is not met.
func (n *node) observe(ctx context.Context, r row) observation {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	subject := n.fill(r.subject)
	var seen observation
	n, err := n.named(r.on)
	if err != nil {
		return observation{code: "error", text: err.Error()}
	}
	switch r.kind {
	case "command":
		seen, err = n.command(ctx, "sh", "-c", subject)
	case "object":
		seen, err = n.command(ctx, "sh", "-c", "kubectl "+subject)
	case "file":
		seen, err = n.file(ctx, subject)
	case "port":
		seen, err = n.port(ctx, subject)
	case "log":
		seen.code = "0"
		seen.text, _, err = run(ctx, nil, "logs", n.name)
	case "image":
		seen.code = "0"
		seen.text, err = docker(ctx, "image", "inspect", "-f", subject, n.suite.image)
	case "exit":
		seen, err = n.exit(ctx)
	case "api":
		seen, err = n.api(ctx, subject)
	case "tls":
		seen, err = n.tls(ctx, subject)
	}
	if err != nil {
		return observation{code: "error", text: err.Error()}
	}
	return seen
}

func (n *node) command(ctx context.Context, command ...string) (observation, error) {
	out, code, err := run(ctx, nil, append([]string{"exec", n.name}, command...)...)
	return observation{fmt.Sprint(code), out}, err
}

// file reads a file's mode and content through Docker: the busybox of the node
// has no stat.
func (n *node) file(ctx context.Context, path string) (observation, error) {
	command := exec.CommandContext(ctx, "docker", "cp", "-L", n.name+":"+path, "-")
	output, err := command.StdoutPipe()
	if err != nil {
		return observation{}, err
	}
	var complaint strings.Builder
	command.Stderr = &complaint
	if err := command.Start(); err != nil {
		return observation{}, err
	}
	seen, err := firstFile(output)
	if err == nil && seen.code != "absent" {
		// The rest may be a whole directory, and nobody asked for it.
		_ = command.Process.Kill()
		_ = command.Wait()
		return seen, nil
	}
	if waitErr := command.Wait(); waitErr != nil {
		text := complaint.String()
		if strings.Contains(text, "Could not find") || strings.Contains(strings.ToLower(text), "no such") {
			return observation{"absent", text}, nil
		}
		return observation{}, fmt.Errorf("docker cp: %w: %s", waitErr, text)
	}
	return seen, err
}

func firstFile(archive io.Reader) (observation, error) {
	files := tar.NewReader(archive)
	header, err := files.Next()
	if errors.Is(err, io.EOF) {
		return observation{"absent", ""}, nil
	} else if err != nil {
		return observation{}, err
	}
	content, err := io.ReadAll(io.LimitReader(files, 1<<20))
	return observation{fmt.Sprintf("%04o", header.Mode&0o7777), string(content)}, err
}

// port asks the kernel of the node who listens, because a connection through
// Docker succeeds whether somebody listens or not.
func (n *node) port(ctx context.Context, number string) (observation, error) {
	out, _, err := run(ctx, nil, "exec", n.name, "cat", "/proc/net/tcp", "/proc/net/tcp6")
	if err != nil {
		return observation{}, err
	}
	var wanted int
	if _, err := fmt.Sscan(number, &wanted); err != nil {
		return observation{}, err
	}
	const listen = "0A"
	var addresses []string
	for _, line := range strings.Split(out, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[3] != listen {
			continue
		}
		address, port, _ := strings.Cut(fields[1], ":")
		if port == fmt.Sprintf("%04X", wanted) {
			addresses = append(addresses, kernelAddress(address))
		}
	}
	if len(addresses) == 0 {
		return observation{"closed", ""}, nil
	}
	return observation{"listening", strings.Join(addresses, "\n")}, nil
}

// kernelAddress decodes /proc/net's words, which are in host byte order.
func kernelAddress(words string) string {
	raw, err := hex.DecodeString(words)
	if err != nil || len(raw)%4 != 0 {
		return words
	}
	for i := 0; i < len(raw); i += 4 {
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	return net.IP(raw).String()
}

// exit has the container's exit code as its code, or "running".
func (n *node) exit(ctx context.Context) (observation, error) {
	out, err := docker(ctx, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", n.name)
	if err != nil {
		return observation{}, err
	}
	status, code, _ := strings.Cut(out, " ")
	if status == "running" {
		code = status
	}
	return observation{code, fmt.Sprintf("%s; the last stop took %.1f s", status, n.stopped.Seconds())}, nil
}
