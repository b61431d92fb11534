package tasklogs

import (
	"context"
	"math/rand/v2"
	"time"
)

const askedAtMost = time.Hour

// waiting counts failures in a row. The n-th wait is first x 2^(n-1), at most most, less a random
// part up to half. If the server says how long to wait, that is used instead, up to an hour, plus a
// random part up to half: clients that were told the same must not return at the same moment.
type waiting struct {
	first, most time.Duration
	failures    int
}

func (w *waiting) next(err *Error) time.Duration {
	w.failures++
	if asked, ok := err.RetryAfter(); ok {
		asked = min(max(asked, 0), askedAtMost)
		return asked + rand.N(asked/2+1)
	}
	ceiling := w.most
	if doublings := w.failures - 1; doublings < 30 {
		ceiling = min(ceiling, w.first<<doublings)
	}
	return ceiling/2 + rand.N(ceiling/2+1)
}

func (w *waiting) reset() { w.failures = 0 }

// sleep waits. It returns the cause of the end of ctx if that ends first.
func sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
