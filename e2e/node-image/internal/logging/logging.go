// Package logging writes the one log that a user of the container sees, in the
// shape that k3s writes it: programs that drive k3s in Docker wait for lines of
// it (k3d for "k3s is up and running", for example).
package logging

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

var (
	mu     sync.Mutex
	output io.Writer = os.Stderr
	debug  bool
)

// EnableDebug makes Debugf write; it is what --debug asks for.
func EnableDebug() { debug = true }

func Debugf(format string, args ...any) {
	if debug {
		line("debug", format, args...)
	}
}

func Infof(format string, args ...any)  { line("info", format, args...) }
func Warnf(format string, args ...any)  { line("warning", format, args...) }
func Errorf(format string, args ...any) { line("error", format, args...) }

// Fatalf logs and ends the process with exit code 1, as k3s does.
func Fatalf(format string, args ...any) {
	line("fatal", format, args...)
	os.Exit(1)
}

// SilenceClients keeps what client-go says of a watch that broke out of the log:
// it tries again by itself, and no line of k3s's looks like that.
func SilenceClients() {
	flags := flag.NewFlagSet("klog", flag.PanicOnError)
	klog.InitFlags(flags)
	flags.Set("logtostderr", "false")
	flags.Set("alsologtostderr", "false")
	flags.Set("stderrthreshold", "FATAL")
	klog.SetOutput(io.Discard)
}

// Raw writes text as it is: the tail of a dead component's log.
func Raw(text string) {
	mu.Lock()
	defer mu.Unlock()
	fmt.Fprintln(output, strings.TrimRight(text, "\n"))
}

func line(level, format string, args ...any) {
	mu.Lock()
	defer mu.Unlock()
	fmt.Fprintf(output, "time=%q level=%s msg=%q\n",
		time.Now().UTC().Format(time.RFC3339), level, fmt.Sprintf(format, args...))
}
