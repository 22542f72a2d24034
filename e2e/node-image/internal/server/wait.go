package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

func fileMode(text string) (os.FileMode, error) {
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("--write-kubeconfig-mode %q is not a file mode such as 0644", text)
	}
	return os.FileMode(mode), nil
}

// waitForPort returns when somebody listens.
func waitForPort(ctx context.Context, address string) error {
	for {
		connection, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			return connection.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
