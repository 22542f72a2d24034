package process

import (
	"fmt"
	"os"
	"sync"
	"time"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// Stage is when a component is stopped: those that use the API before the API,
// the API before its store, the container runtime last.
type Stage int

const (
	UsesAPI Stage = iota
	API
	Store
	Runtime
	stages
)

// How long a stage may take before it is killed. Together they stay below the
// ten seconds that `docker stop` waits.
var grace = [stages]time.Duration{2 * time.Second, 2 * time.Second, 3 * time.Second, time.Second}

// Group is the components of a node. The death of one is the death of all: a
// container that is half alive would look healthy to Docker.
type Group struct {
	logDir   string
	died     chan error
	mu       sync.Mutex
	stopping bool
	stages   [stages][]*Process
	trials   map[*Process]bool
}

func NewGroup(logDir string) *Group {
	return &Group{logDir: logDir, died: make(chan error, 1), trials: map[*Process]bool{}}
}

// Component starts a component of the node: `k3s NAME ARGS`.
func (g *Group) Component(stage Stage, name string, args []string) (*Process, error) {
	return g.component(stage, name, args, false)
}

func (g *Group) component(stage Stage, name string, args []string, trial bool) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find our own program to run %s: %w", name, err)
	}
	return g.run(stage, name, append([]string{self, name}, args...), trial)
}

// Trial starts a component whose death is no failure yet: the caller looks at
// Done, and ends the trial by Settle.
func (g *Group) Trial(stage Stage, name string, args []string) (*Process, error) {
	return g.component(stage, name, args, true)
}

// Settle makes the death of a component that was on trial what every other's is.
func (g *Group) Settle(p *Process) {
	g.mu.Lock()
	delete(g.trials, p)
	g.mu.Unlock()
	select {
	case <-p.Done():
		g.Fail(fmt.Errorf("%s exited: %s", p.Name, p.Exit()))
	default:
	}
}

// Program starts another program than our own.
func (g *Group) Program(stage Stage, name string, argv []string) (*Process, error) {
	return g.run(stage, name, argv, false)
}

func (g *Group) run(stage Stage, name string, argv []string, trial bool) (*Process, error) {
	log, err := openLog(g.logDir, name)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping {
		return nil, fmt.Errorf("%s is not started: the node is stopping", name)
	}
	p, err := Start(name, argv, os.Environ(), nil, log)
	if err != nil {
		return nil, err
	}
	g.stages[stage] = append(g.stages[stage], p)
	if trial {
		g.trials[p] = true
	}
	go g.watch(p, log)
	return p, nil
}

func (g *Group) watch(p *Process, log *logFile) {
	<-p.Done()
	g.mu.Lock()
	quiet := g.stopping || g.trials[p]
	g.mu.Unlock()
	if quiet {
		return
	}
	p.drain()
	logging.Raw(fmt.Sprintf("--- the end of %s ---\n%s--- end ---", log.path, log.tail()))
	g.Fail(fmt.Errorf("%s exited: %s; its whole log is %s", p.Name, p.Exit(), log.path))
}

// Fail ends the node for a reason that is not a component's death.
func (g *Group) Fail(err error) {
	select {
	case g.died <- err:
	default: // something else failed first and is the story to tell
	}
}

// Failed delivers the first failure.
func (g *Group) Failed() <-chan error { return g.died }

// Stop ends everything, stage by stage.
func (g *Group) Stop() {
	g.mu.Lock()
	g.stopping = true
	g.mu.Unlock()
	for stage, processes := range g.stages {
		Stop(grace[stage], processes...)
	}
}
