package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// together is how many rows of a stage are looked at at once: enough to hide
// their waiting, few enough for a machine of two cores.
const together = 4

// runGroup runs one table of rows on one node.
func (s *suite) runGroup(ctx context.Context, group string, number int) {
	stages, err := readGroup(filepath.Join(s.groupsDir, group))
	if err != nil {
		s.report(group, row{what: "its table can be read"}, err.Error())
		return
	}
	if group == "cgroup" && !s.refusesCgroupV1() {
		s.print("skip %-10s needs a cgroup v1 host and Kubernetes 1.35 or newer", group)
		return
	}
	n := newNode(s, group, number)
	failedBefore, began := s.failures(), time.Now()
	for _, stage := range stages {
		if err := n.perform(ctx, stage.step); err != nil {
			s.abandon(group, stages, stage, err)
			break
		}
		s.runStage(ctx, group, n, stage.rows)
	}
	if s.failures() > failedBefore && ctx.Err() == nil {
		s.print("---- the last lines of the log of %s\n%s----", n.name, n.logTail(ctx, 40))
	}
	// Idle servers would slow down the groups that follow.
	for _, other := range n.others {
		_, _ = docker(ctx, "rm", "-f", "-v", other.name)
	}
	_, _ = docker(ctx, "rm", "-f", "-v", n.name)
	s.print("---- %s took %s", group, time.Since(began).Round(time.Second))
}

func (s *suite) runStage(ctx context.Context, group string, n *node, rows []row) {
	results := make([]string, len(rows))
	slots := make(chan struct{}, together)
	var all sync.WaitGroup
	for i, r := range rows {
		all.Add(1)
		slots <- struct{}{}
		go func() {
			defer all.Done()
			results[i] = n.check(ctx, r)
			<-slots
		}()
	}
	all.Wait()
	for i, r := range rows {
		s.report(group, r, results[i])
	}
}

// check looks until the row is met or its time is up. It returns what is wrong,
// or nothing.
func (n *node) check(ctx context.Context, r row) string {
	want, err := parseExpectation(r.expect, n.fillPattern)
	if err != nil {
		return err.Error()
	}
	deadline := time.Now().Add(r.within)
	for {
		seen := n.observe(ctx, r)
		if want.met(seen) {
			return ""
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Sprintf("%s: %s\nexpected: %s\ngot:      %s",
				r.kind, n.fill(r.subject), n.fill(r.expect), seen)
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// abandon counts the rows that a failed step made unreachable: a promise that
// could not be looked at is not kept.
func (s *suite) abandon(group string, stages []stage, at stage, err error) {
	s.print("---- %s: step %q failed (%s): %v", group, at.step, at.line, err)
	reached := false
	for _, stage := range stages {
		reached = reached || stage.line == at.line
		for _, r := range stage.rows {
			if reached {
				s.report(group, r, "not reached")
			}
		}
	}
}

func (s *suite) report(group string, r row, problem string) {
	s.output.Lock()
	defer s.output.Unlock()
	if problem == "" {
		s.passed++
		fmt.Printf("ok   %-10s %s\n", group, r.what)
		return
	}
	s.failed++
	if problem == "not reached" {
		fmt.Printf("FAIL %-10s %s (%s)\n", group, r.what, problem)
		return
	}
	fmt.Printf("FAIL %-10s %s\n       %s\n       %s %s\n", group, r.what,
		strings.ReplaceAll(problem, "\n", "\n       "), r.line, r.page)
}

func (s *suite) print(format string, args ...any) {
	s.output.Lock()
	defer s.output.Unlock()
	fmt.Printf(format+"\n", args...)
}

func (s *suite) failures() int {
	s.output.Lock()
	defer s.output.Unlock()
	return s.failed
}

func (s *suite) refusesCgroupV1() bool {
	var minor int
	_, _ = fmt.Sscanf(s.version, "v1.%d", &minor)
	return s.cgroupV1 && minor >= 35
}

// onHost tells whether a subnet overlaps one that the host itself lies in.
func onHost(subnet string) bool {
	_, wanted, err := net.ParseCIDR(subnet + ".0/24")
	if err != nil {
		return true
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, address := range addresses {
		if other, ok := address.(*net.IPNet); ok && (other.Contains(wanted.IP) || wanted.Contains(other.IP)) {
			return true
		}
	}
	return false
}
