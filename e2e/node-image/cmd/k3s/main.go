// Command k3s is the one program of k3nest's offline node image.
//
// It keeps the documented command line of k3s with Kubernetes' own components
// inside. Called as `k3s server` it is the supervisor (internal/server) and
// starts the components as children, each this same program under the name of
// the component. It never claims to be k3s: see --version.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"k3nest.dev/k3nest/e2e/node-image/internal/etcd"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/options"
	"k3nest.dev/k3nest/e2e/node-image/internal/server"
	"k3nest.dev/k3nest/e2e/node-image/internal/worker"
)

// version is set by the linker: -X main.version=v1.36.1+k3s1.
var version = "unset"

const usage = `k3s - the offline node image of k3nest; it is not k3s

USAGE:
   k3s COMMAND [OPTIONS]

COMMANDS:
   server          run a server of the cluster
   agent           run an agent of the cluster
   kubectl         run kubectl
   ctr             run containerd's ctr
   crictl          run crictl
   etcd-snapshot   save, list, delete and prune etcd snapshots
   token           manage join tokens

OPTIONS:
   --help, -h      show help
   --version, -v   print the version
`

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if _, ours := commands[name]; !ours {
		if len(args) == 0 {
			fmt.Print(usage)
			return
		}
		name, args = args[0], args[1:]
	}
	switch name {
	case "--version", "-v":
		printVersion()
		return
	case "--help", "-h", "help":
		fmt.Print(usage)
		return
	}
	command, known := commands[name]
	if !known {
		refuse(name)
	}
	collectLessAtStart()
	command(name, args)
}

// collectLessAtStart lets the heap of what runs for long grow more freely in its
// first minute, when a whole cluster of processes starts on a few cores and what
// they allocate is mostly kept anyway: it saves a seventh of the CPU time.
func collectLessAtStart() {
	if os.Getenv("GOGC") != "" {
		return
	}
	usual := debug.SetGCPercent(400)
	time.AfterFunc(time.Minute, func() {
		debug.SetGCPercent(usual)
		debug.FreeOSMemory() // what an idle node holds is as if it had never been
	})
}

// commands is everything that this program is called as.
var commands = map[string]func(name string, args []string){
	"server":        runServer,
	"agent":         runAgent,
	"kubectl":       runKubectl,
	"ctr":           runCtr,
	"crictl":        runCrictl,
	"etcd-snapshot": func(_ string, args []string) { exitOn(etcd.Command(args, os.Stdout)) },
	"token":         runToken,

	"secrets-encrypt": notBuilt,
	"certificate":     notBuilt,
	"completion":      notBuilt,
	"check-config":    notBuilt,

	// The components, as the supervisor calls them.
	"etcd":                    runEtcd,
	"kube-apiserver":          runCobra,
	"kube-controller-manager": runCobra,
	"kube-scheduler":          runCobra,
	"kubelet":                 runCobra,
	"kube-proxy":              runCobra,
}

func printVersion() {
	fmt.Printf("k3s version %s (k3nest's offline node image; this is not k3s)\ngo version %s\n", version, runtime.Version())
}

func runServer(name string, args []string) {
	o := parse(name, args)
	logging.Infof("Starting k3nest's offline node image %s; this is not k3s", version)
	exitOn(server.Run(o))
}

func runAgent(name string, args []string) {
	o := parse(name, args)
	switch {
	case o.Token == "":
		logging.Fatalf("--token is required")
	case o.Server == "":
		logging.Fatalf("--server is required")
	}
	logging.Infof("Starting k3nest's offline node image %s; this is not k3s", version)
	exitOn(worker.Run(o))
}

// parse ends the process as k3s does when a flag is wrong.
func parse(name string, args []string) *options.Options {
	for _, arg := range args {
		if arg == "--help" || arg == "-h" {
			options.Help(name, os.Stdout)
			os.Exit(0)
		}
	}
	o, err := options.Parse(name, args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "Incorrect Usage: %v\n\n", err)
		logging.Fatalf("%v", err)
	}
	if o.Debug {
		logging.EnableDebug()
	}
	return o
}

func notBuilt(name string, _ []string) {
	logging.Fatalf("k3s %s is not built in k3nest's offline node image; use rancher/k3s where you need it", name)
}

func refuse(name string) {
	if len(name) > 0 && name[0] == '-' {
		name = "-" + strings.TrimLeft(name, "-") // as Go's flag package spells it
		fmt.Fprintf(os.Stderr, "Incorrect Usage: flag provided but not defined: %s\n\n%s", name, usage)
		logging.Fatalf("flag provided but not defined: %s", name)
	}
	fmt.Fprint(os.Stderr, usage)
	logging.Fatalf("No help topic for '%s'", name)
}

func exitOn(err error) {
	if err != nil {
		logging.Fatalf("%v", err)
	}
}
