package join

import (
	"context"
	"errors"
	"time"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// How long a node waits before it asks again: briefly at first, since a whole
// cluster is often started at once, and then as is easy on a busy host.
const (
	firstPause, longestPause = 100 * time.Millisecond, 2 * time.Second
	// A reason is told again after this long, and a new one not sooner than
	// after a second: most differ only by a port number.
	tellAgain, tellNew = 10 * time.Second, time.Second
)

// pause grows from the first to the longest over about a minute of asking. Who is
// refused must wait for somebody to change something; and to compare a password
// costs the server a tenth of a second.
func pause(asked time.Duration, err error) time.Duration {
	if errors.Is(err, ErrForbidden) || errors.Is(err, ErrUnauthorized) {
		return longestPause
	}
	return min(longestPause, firstPause+asked/32)
}

// Until asks until it is answered, or until final says that an error will stay.
func Until(ctx context.Context, what string, ask func() error, final func(error) bool) error {
	began := time.Now()
	var told time.Time
	var last string
	for {
		err := ask()
		if err == nil || (final != nil && final(err)) {
			return err
		}
		since := time.Since(told)
		if ctx.Err() == nil && (since > tellAgain || since > tellNew && err.Error() != last) {
			logging.Infof("%s: %v", what, err)
			told, last = time.Now(), err.Error()
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause(time.Since(began), err)):
		}
	}
}
