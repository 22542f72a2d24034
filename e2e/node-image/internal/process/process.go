// Package process starts, watches and ends the children of PID 1.
//
// PID 1 of a container inherits every orphan in it (the shims of containerd,
// what `docker exec` leaves behind) and has to reap them all. Go's os/exec waits
// for its own children, which would race with a loop that reaps everything, so
// this package forks by itself and has one reaper that hands each exit status to
// whoever started that process.
package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a child that was started.
type Process struct {
	Name string
	Pid  int
	done chan struct{}
	exit syscall.WaitStatus
	copy sync.WaitGroup // the goroutine that reads its output
}

var (
	mu       sync.Mutex // held over fork and over reaping: no exit is lost between them
	children = map[int]*Process{}
	startup  sync.Once
)

// Start runs argv with its output going to out. A nil environment is our own.
func Start(name string, argv, environment []string, stdin io.Reader, out io.Writer) (*Process, error) {
	startup.Do(reapForever)
	if environment == nil {
		environment = os.Environ()
	}
	input, feed, err := inputFor(stdin)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer input.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer writer.Close()

	p := &Process{Name: name, done: make(chan struct{})}
	mu.Lock()
	p.Pid, err = syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Env:   environment,
		Files: []uintptr{input.Fd(), writer.Fd(), writer.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err == nil {
		children[p.Pid] = p
	}
	mu.Unlock()
	if err != nil {
		reader.Close()
		return nil, fmt.Errorf("start %s (%s): %w", name, argv[0], err)
	}
	if feed != nil {
		go feed()
	}
	p.copy.Go(func() {
		defer reader.Close()
		io.Copy(out, reader)
	})
	return p, nil
}

// inputFor gives the child /dev/null, or a pipe and the function that fills it.
func inputFor(stdin io.Reader) (*os.File, func(), error) {
	if stdin == nil {
		null, err := os.Open(os.DevNull)
		return null, nil, err
	}
	reader, writer, err := os.Pipe()
	return reader, func() {
		defer writer.Close()
		io.Copy(writer, stdin)
	}, err
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// drain waits for the last of the output; not long, since a grandchild that
// lives on may hold the pipe open for ever.
func (p *Process) drain() {
	drained := make(chan struct{})
	go func() {
		p.copy.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(time.Second):
	}
}

// Exit says how it ended, in words.
func (p *Process) Exit() string {
	<-p.done
	if p.exit.Signaled() {
		return "killed by " + unix.SignalName(p.exit.Signal())
	}
	return fmt.Sprintf("exit code %d", p.exit.ExitStatus())
}

// Signal does nothing to a process that has ended.
func (p *Process) Signal(sig syscall.Signal) {
	mu.Lock()
	defer mu.Unlock()
	if children[p.Pid] == p {
		unix.Kill(p.Pid, sig)
	}
}

// Stop asks the processes to end and kills those that have not after grace.
func Stop(grace time.Duration, processes ...*Process) {
	for _, p := range processes {
		p.Signal(syscall.SIGTERM)
	}
	deadline := time.After(grace)
	for _, p := range processes {
		select {
		case <-p.done:
		case <-deadline:
			for _, late := range processes {
				late.Signal(syscall.SIGKILL)
			}
			return
		}
	}
}

// Output runs a short command to its end and returns what it wrote.
func Output(name string, argv []string, stdin io.Reader) (string, error) {
	var out bytes.Buffer
	p, err := Start(name, argv, nil, stdin, &out)
	if err != nil {
		return "", err
	}
	<-p.done
	p.drain()
	text := strings.TrimSpace(out.String())
	if p.exit != 0 {
		return text, fmt.Errorf("%s: %s: %s", strings.Join(argv, " "), p.Exit(), text)
	}
	return text, nil
}

func reapForever() {
	// Orphans come here also when an injected init process is PID 1.
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	ended := make(chan os.Signal, 16)
	signal.Notify(ended, unix.SIGCHLD)
	go func() {
		for range ended {
			reap()
		}
	}()
}

func reap() {
	mu.Lock()
	defer mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if p := children[pid]; p != nil {
			delete(children, pid)
			p.exit = status
			close(p.done)
		}
	}
}
