// Command contract checks what k3nest relies on in a k3s node image: the
// offline node image of this repository and real rancher/k3s are held against
// the same rows. README.md tells how to read and add rows.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// suite is one run against one image.
type suite struct {
	id        string // of this run, in the name and label of all it creates
	image     string
	version   string // what Kubernetes must say its version is
	runtime   string
	tools     string
	groupsDir string
	scratch   string
	network   string
	subnet    string // "10.x.y", a /24
	cgroupV1  bool

	output sync.Mutex
	passed int
	failed int
}

// Two groups at a time are what a machine of two cores can do; the longest ones
// are not in the same lane.
var lanes = [][]string{{"server"}, {"image", "cluster", "configured", "cgroup"}}

func main() {
	s := &suite{}
	var only string
	flag.StringVar(&s.runtime, "runtime", "", "OCI runtime for the node containers")
	flag.StringVar(&s.tools, "tools", "k3nest-offline/tools:1", "image of the Pods")
	flag.StringVar(&s.groupsDir, "groups", "groups", "directory of the rows")
	flag.StringVar(&only, "group", "", "run one group only")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: run.sh IMAGE [--runtime NAME] [--group NAME]")
	}
	image := parse(os.Args[1:])
	if image == "" {
		flag.Usage()
		os.Exit(2)
	}
	s.image = image
	os.Exit(s.run(only))
}

// parse lets the image stand before or after the flags.
func parse(args []string) (image string) {
	for len(args) > 0 {
		_ = flag.CommandLine.Parse(args) // exits by itself
		if args = flag.Args(); len(args) > 0 {
			image, args = args[0], args[1:]
		}
	}
	return image
}

func (s *suite) run(only string) int {
	// A broken pipe counts as an interrupt: whoever reads us may be `head`, and
	// what was created is removed all the same.
	ctx, cancel := signal.NotifyContext(context.Background(),
		os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer cancel()
	ctx, cancelTime := context.WithTimeout(ctx, 15*time.Minute)
	defer cancelTime()

	began := time.Now()
	defer s.cleanUp()
	if err := s.prepare(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "contract:", err)
		return 1
	}
	fmt.Printf("contract of %s, which is to serve Kubernetes %s\n", s.image, s.version)

	var all sync.WaitGroup
	for lane, groups := range lanes {
		all.Add(1)
		go func() {
			defer all.Done()
			for i, group := range groups {
				if only == "" || only == group {
					s.runGroup(ctx, group, 10*lane+i)
				}
			}
		}()
	}
	all.Wait()

	if ctx.Err() != nil {
		fmt.Println("interrupted:", context.Cause(ctx))
	}
	fmt.Printf("in %s\n%d passed, %d failed\n", time.Since(began).Round(time.Second), s.passed, s.failed)
	if ctx.Err() != nil || s.failed > 0 || s.passed == 0 {
		return 1
	}
	return 0
}

func (s *suite) prepare(ctx context.Context) error {
	raw := make([]byte, 3)
	if _, err := rand.Read(raw); err != nil {
		return err
	}
	s.id = hex.EncodeToString(raw)
	tag := s.image[strings.LastIndex(s.image, ":")+1:]
	if !strings.HasPrefix(tag, "v1.") {
		return fmt.Errorf("%s: the tag must be k3s's version, as in rancher/k3s:v1.36.1-k3s1", s.image)
	}
	// Tags cannot hold k3s's plus sign.
	s.version = strings.Replace(tag, "-k3s", "+k3s", 1)

	if _, err := docker(ctx, "image", "inspect", s.image); err != nil {
		if _, pullErr := docker(ctx, "pull", s.image); pullErr != nil {
			return fmt.Errorf("the image is not here (%v) and cannot be pulled: %w", err, pullErr)
		}
	}
	cgroups, err := docker(ctx, "info", "-f", "{{.CgroupVersion}}")
	if err != nil {
		return err
	}
	s.cgroupV1 = cgroups != "2"
	if s.scratch, err = os.MkdirTemp("", "contract-"); err != nil {
		return err
	}
	return s.createNetwork(ctx)
}

// createNetwork finds a free /24. Docker refuses one that overlaps another of
// its networks; what lies on the host's own is refused here.
func (s *suite) createNetwork(ctx context.Context) error {
	s.network = "contract-" + s.id
	var last error
	for range 20 {
		raw := make([]byte, 2)
		if _, err := rand.Read(raw); err != nil {
			return err
		}
		// Outside of k3s's defaults, 10.42 and 10.43, and of our other rows.
		s.subnet = fmt.Sprintf("10.%d.%d", 180+int(raw[0])%60, raw[1])
		if onHost(s.subnet) {
			last = errors.New("subnets collide with the host's")
			continue
		}
		_, last = docker(ctx, "network", "create", "--label", runLabel+"="+s.id,
			"--subnet", s.subnet+".0/24", s.network)
		if last == nil {
			return nil
		}
	}
	return last
}

func (s *suite) cleanUp() {
	if s.id != "" {
		sweep(s.id)
	}
	if s.scratch != "" {
		_ = os.RemoveAll(s.scratch)
	}
}
