package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A row is one promise of k3s: how to look, and what must be seen. The rows
// are data, so that the contract can be read, and added to, without this
// program.
type row struct {
	what    string        // the promise, as a sentence
	kind    string        // how to look: command, file, port, ... (observe.go)
	subject string        // what to look at
	expect  string        // "CODE", "CODE ~ REGEX", "CODE !~ REGEX", "~ REGEX"
	within  time.Duration // how long it may take to come true
	on      string        // which further node of the group it looks at; none is the group's own
	page    string        // where k3s documents it
	line    string        // file and line, for diagnostics
}

// A stage is a set of rows that may be looked at in any order, after a step
// that brings the node there.
type stage struct {
	step string
	line string
	rows []row
}

var kinds = map[string]bool{
	"command": true, "file": true, "port": true, "log": true, "api": true,
	"tls": true, "image": true, "object": true, "exit": true,
}

const patience = 30 * time.Second

// notStarted are the steps after which k3s does not run: there nothing comes
// true by waiting, and a row is looked at once.
var notStarted = map[string]bool{"begin": true, "idle": true}

// readGroup reads the tables of a group, which are one story in order of their
// names.
func readGroup(dir string) ([]stage, error) {
	tables, err := filepath.Glob(filepath.Join(dir, "*.rows"))
	if err != nil || len(tables) == 0 {
		return nil, fmt.Errorf("no rows in %s (%v)", dir, err)
	}
	var stages []stage
	first := "begin"
	for _, table := range tables {
		more, err := readTable(table, first)
		if err != nil {
			return nil, err
		}
		stages = append(stages, more...)
		first = "then" // a table goes on where the one before it ended
	}
	return stages, nil
}

// readTable reads a file of rows. A line is a key and its value; `row` begins
// a row and `step` begins a stage.
func readTable(path, first string) ([]stage, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()

	stages := []stage{{step: first, line: path}}
	var current *row
	finish := func() error {
		if current == nil {
			return nil
		}
		if current.kind == "" || current.expect == "" || current.page == "" {
			return fmt.Errorf("%s: row %q needs a kind, expect and page", current.line, current.what)
		}
		if _, err := parseExpectation(current.expect, identity); err != nil {
			return fmt.Errorf("%s: %w", current.line, err)
		}
		last := &stages[len(stages)-1]
		last.rows = append(last.rows, *current)
		current = nil
		return nil
	}

	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		where := fmt.Sprintf("%s:%d", filepath.Join(filepath.Base(filepath.Dir(path)), filepath.Base(path)), number)
		key, value, _ := strings.Cut(text, " ")
		value = strings.TrimSpace(value)
		if key == "row" || key == "step" {
			if err := finish(); err != nil {
				return nil, err
			}
		} else if current == nil {
			return nil, fmt.Errorf("%s: %s stands outside of a row", where, key)
		}
		switch {
		case key == "row":
			current = &row{what: value, within: patience, line: where}
			if notStarted[stages[len(stages)-1].step] {
				current.within = 0
			}
		case key == "step":
			stages = append(stages, stage{step: value, line: where})
		case key == "expect":
			current.expect = value
		case key == "on":
			current.on = value
		case key == "page":
			current.page = value
		case key == "within":
			if current.within, err = time.ParseDuration(value); err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
		case kinds[key]:
			current.kind, current.subject = key, value
		default:
			return nil, fmt.Errorf("%s: unknown key %q", where, key)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return stages, finish()
}

// An observation is what was seen: a short code (an exit code, a file mode, an
// HTTP status, a word) and a text.
type observation struct {
	code string
	text string
}

func (o observation) String() string {
	const enough = 600
	text := strings.TrimSpace(o.text)
	if len(text) > enough {
		text = "… " + text[len(text)-enough:]
	}
	return o.code + " ~ " + text
}

type expectation struct {
	code    string
	notCode bool
	pattern *regexp.Regexp
	notText bool
}

func identity(s string) string { return s }

// parseExpectation takes the function that fills in placeholders last, because
// in a pattern their values must be quoted.
func parseExpectation(text string, fill func(string) string) (expectation, error) {
	var e expectation
	code, pattern, found := strings.Cut(" "+text, " ~ ")
	if !found {
		if code, pattern, e.notText = strings.Cut(" "+text, " !~ "); e.notText {
			found = true
		}
	}
	e.code = fill(strings.TrimSpace(code))
	e.code, e.notCode = strings.CutPrefix(e.code, "!")
	if !found {
		return e, nil
	}
	var err error
	e.pattern, err = regexp.Compile("(?m)" + fill(pattern))
	return e, err
}

func (e expectation) met(o observation) bool {
	if e.code != "" && (o.code == e.code) == e.notCode {
		return false
	}
	return e.pattern == nil || e.pattern.MatchString(o.text) != e.notText
}
