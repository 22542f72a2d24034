package process

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
)

const (
	largestLog = 16 << 20 // then it becomes NAME.log.1 and a new one begins
	tailBytes  = 4 << 10
)

// logFile is a component's log: bounded on the disk, its end kept in memory so
// that it can be shown when the component dies.
type logFile struct {
	mu   sync.Mutex
	path string
	file *os.File
	size int64
	last []byte
}

func openLog(dir, name string) (*logFile, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l := &logFile{path: filepath.Join(dir, name+".log")}
	return l, l.rotate()
}

// rotate also begins each start of the container with a fresh file.
func (l *logFile) rotate() (err error) {
	if l.file != nil {
		l.file.Close()
	}
	os.Rename(l.path, l.path+".1")
	l.size = 0
	l.file, err = os.Create(l.path)
	return err
}

// Write never fails: a full disk must not stop the component by a full pipe.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(p)) > largestLog {
		l.rotate()
	}
	written, _ := l.file.Write(p)
	l.size += int64(written)
	l.last = append(l.last, p...)
	if extra := len(l.last) - tailBytes; extra > 0 {
		l.last = append([]byte(nil), l.last[extra:]...)
	}
	return len(p), nil
}

// tail is the end of the log, from the beginning of a line.
func (l *logFile) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	tail := l.last
	if len(tail) >= tailBytes {
		if _, rest, found := bytes.Cut(tail, []byte("\n")); found {
			tail = rest
		}
	}
	return string(tail)
}
