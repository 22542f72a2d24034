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
}

func NewGroup(logDir string) *Group {
	return &Group{logDir: logDir, died: make(chan error, 1)}
}

// Component starts a component of the node: `k3s NAME ARGS`, or another program
// when argv names one.
func (g *Group) Component(stage Stage, name string, args []string, environment ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find our own program to run %s: %w", name, err)
	}
	return g.Program(stage, name, append([]string{self, name}, args...), environment...)
}

func (g *Group) Program(stage Stage, name string, argv []string, environment ...string) (*Process, error) {
	log, err := openLog(g.logDir, name)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping {
		return nil, fmt.Errorf("%s is not started: the node is stopping", name)
	}
	p, err := Start(name, argv, append(os.Environ(), environment...), nil, log)
	if err != nil {
		return nil, err
	}
	g.stages[stage] = append(g.stages[stage], p)
	go g.watch(p, log)
	return p, nil
}

func (g *Group) watch(p *Process, log *logFile) {
	<-p.Done()
	g.mu.Lock()
	stopping := g.stopping
	g.mu.Unlock()
	if stopping {
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
