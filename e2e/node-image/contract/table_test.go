package main

import (
	"path/filepath"
	"regexp"
	"testing"
)

// The tables are code as well: a row that cannot be read, or that comes from
// nowhere, must not wait for a node image to be noticed.
func TestEveryRowIsCompleteAndNamesItsPage(t *testing.T) {
	pages := regexp.MustCompile(`^https://(docs\.k3s\.io|kubernetes\.io/docs|github\.com/k3s-io)/`)
	count := 0
	for _, lane := range lanes {
		for _, group := range lane {
			stages, err := readGroup(filepath.Join("groups", group))
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, stage := range stages {
				for _, r := range stage.rows {
					count++
					if !pages.MatchString(r.page) {
						t.Errorf("%s: %q is no page of k3s or Kubernetes", r.line, r.page)
					}
					if seen[r.what] {
						t.Errorf("%s: a second row %q", r.line, r.what)
					}
					seen[r.what] = true
				}
			}
		}
	}
	if count < 60 {
		t.Errorf("%d rows are less than a contract", count)
	}
	t.Logf("%d rows", count)
}

func TestExpectation(t *testing.T) {
	for _, c := range []struct {
		expect string
		seen   observation
		met    bool
	}{
		{"0", observation{"0", "anything"}, true},
		{"0", observation{"1", ""}, false},
		{"!0", observation{"1", ""}, true},
		{"!137 ~ ^exited", observation{"running", "running"}, false},
		{"~ ^second$", observation{"7", "first\nsecond"}, true},
		{"0 ~ a", observation{"1", "a"}, false},
		{"!~ INVOCATION_ID", observation{"0", "PATH=/bin"}, true},
		{"!~ INVOCATION_ID", observation{"0", "INVOCATION_ID=1"}, false},
		{"401", observation{"401", "Unauthorized"}, true},
	} {
		e, err := parseExpectation(c.expect, func(s string) string { return s })
		if err != nil {
			t.Fatal(err)
		}
		if e.met(c.seen) != c.met {
			t.Errorf("%q with %v: met is %v", c.expect, c.seen, !c.met)
		}
	}
}

func TestAddressesOfTheKernel(t *testing.T) {
	for words, want := range map[string]string{
		"0100007F":                         "127.0.0.1",
		"00000000":                         "0.0.0.0",
		"00000000000000000000000000000000": "::",
		"0000000000000000FFFF00000A0000AC": "172.0.0.10",
	} {
		if got := kernelAddress(words); got != want {
			t.Errorf("%s: got %s, want %s", words, got, want)
		}
	}
}

func TestPlaceholdersAreQuotedInPatterns(t *testing.T) {
	n := &node{facts: map[string]string{"version": "v1.36.1+k3s1"}}
	e, err := parseExpectation("0 ~ ^{version}$", n.fillPattern)
	if err != nil {
		t.Fatal(err)
	}
	if !e.met(observation{"0", "v1.36.1+k3s1"}) || e.met(observation{"0", "v1.36.11k3s1"}) {
		t.Error("the version is matched as a pattern")
	}
}
