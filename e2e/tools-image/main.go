// Command tools is the workload of the end-to-end tests: one static program
// that answers, asks and resolves, so that a test of a cluster needs one small
// image and no registry.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// A mode is what the program does, chosen by its first argument. Its error
// becomes one line on standard error and exit code 1, which is what a test
// that runs it by `kubectl exec` sees.
type mode struct {
	usage string
	run   func(args []string) error
}

// errUsage says that the arguments do not fit; main adds the usage line, which
// only it knows.
var errUsage = errors.New("wrong arguments")

var modes = map[string]mode{
	"tcp-echo": {"tcp-echo ADDR", one(tcpEcho)},
	"udp-echo": {"udp-echo ADDR", one(udpEcho)},
	"http":     {"http ADDR", one(serveHTTP)},
	"resolve":  {"resolve NAME", one(resolve)},
	"tcp-ask":  {"tcp-ask ADDR TEXT", two(ask("tcp"))},
	"udp-ask":  {"udp-ask ADDR TEXT", two(ask("udp"))},
	"get":      {getUsage, get},
	"sleep":    {"sleep", none(sleep)},
	"spin":     {"spin", none(spin)},
	"fill":     {"fill BYTES", one(fill)},
}

func main() {
	// A container's process 1 gets no default signal actions from the kernel:
	// without this a Pod would take its whole grace period to stop.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		os.Exit(0)
	}()

	if len(os.Args) < 2 {
		fail(2, "usage: tools MODE ..., with one of these modes:\n%s", allUsages())
	}
	chosen, known := modes[os.Args[1]]
	if !known {
		fail(2, "unknown mode %q; there are:\n%s", os.Args[1], allUsages())
	}
	if err := chosen.run(os.Args[2:]); errors.Is(err, errUsage) {
		fail(2, "%v\nusage: tools %s", err, chosen.usage)
	} else if err != nil {
		fail(1, "%s: %v", os.Args[1], err)
	}
}

func fail(code int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(code)
}

func allUsages() string {
	var lines []string
	for _, name := range []string{"tcp-echo", "udp-echo", "http", "tcp-ask", "udp-ask", "resolve", "get", "sleep", "spin", "fill"} {
		lines = append(lines, "  "+modes[name].usage)
	}
	return strings.Join(lines, "\n")
}

func none(f func() error) func([]string) error {
	return func(args []string) error {
		if len(args) != 0 {
			return errUsage
		}
		return f()
	}
}

func one(f func(string) error) func([]string) error {
	return func(args []string) error {
		if len(args) != 1 {
			return errUsage
		}
		return f(args[0])
	}
}

func two(f func(string, string) error) func([]string) error {
	return func(args []string) error {
		if len(args) != 2 {
			return errUsage
		}
		return f(args[0], args[1])
	}
}

// sleep does nothing until it is told to stop: a Pod to exec into.
func sleep() error {
	select {}
}

// spin keeps every core busy that it is given.
func spin() error {
	for range runtime.NumCPU() {
		go func() {
			for {
			}
		}()
	}
	return sleep()
}

// fill takes memory, and uses it, since the kernel counts only what was written to.
func fill(bytes string) error {
	size, err := strconv.Atoi(bytes)
	if err != nil {
		return errUsage
	}
	kept := make([]byte, size)
	for i := 0; i < len(kept); i += os.Getpagesize() {
		kept[i] = 1
	}
	return sleep()
}
