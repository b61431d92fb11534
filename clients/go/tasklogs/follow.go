package tasklogs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "tasklogs/clients/go/tasklogs/v1"
)

const (
	defaultProgressInterval = 15 * time.Second
	silenceMargin           = 10 * time.Second // for the network, and for an overloaded server
	defaultConnectTimeout   = 10 * time.Second
)

// FollowOptions says what [Client.Follow] follows, and from where.
type FollowOptions struct {
	// Source: as in [ReadOptions], for what is yielded before CaughtUp.
	Source Source
	// Tail: begin with the last N entries of the current epoch ([Last]); 0: none. nil: all.
	Tail *int32
	// Cursor: begin after an event or a read. Not together with Tail.
	Cursor string
	// Types: only entries of these types, and only their withdrawals. Empty: all types.
	Types []EntryType
	// Progress: yield a Progress if nothing else came for ProgressInterval.
	Progress bool
	// ProgressInterval is from 1 s to 1 h; 0: 15 s. If a stream brings nothing for 10 s longer, its
	// connection counts as broken.
	ProgressInterval time.Duration
	// ConnectTimeout is how long the first connection is tried while there is no server; 0: 10 s,
	// below 0: without a limit.
	ConnectTimeout time.Duration
	// ReconnectTimeout is how long a follow that runs tries to reconnect, from the break on; 0:
	// without a limit.
	ReconnectTimeout time.Duration
	// OnReconnect, if it is set, is called before each wait, and with nil when the follow
	// continues.
	OnReconnect func(*Reconnecting)
}

// Follow follows a task's log. It yields the status, then the stored entries, CaughtUp, and then
// every change as it is committed. It continues through pauses, resumes, new epochs, and restarts
// of agent and server, until the loop over it ends, ctx ends, or it yields an error, which is the
// last thing that it yields. options may be nil.
//
// An entry that changes is yielded again, whole, with the text that was appended. If it changes
// faster than it is read, only its latest state is yielded. When its stream breaks, the follow
// reconnects and continues: no event is missing, none is repeated. To continue in another process,
// keep the cursor of the last event.
//
// The error is ErrTaskNotFound (also if the task is deleted), ErrTaskStateConflict,
// ErrInvalidFields (for instance a cursor of another task), ErrCursorExpired (with
// [Error.OldestCursor]), or what the token or the connection is refused for.
func (c *Client) Follow(
	ctx context.Context, task string, options *FollowOptions,
) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		f, err := newFollow(c, task, options)
		if err != nil {
			yield(nil, err)
			return
		}
		ctx, stop := c.whileOpen(ctx)
		defer stop()
		defer f.dropStream()
		for {
			event, err := f.next(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(event, nil) {
				return
			}
		}
	}
}

type follow struct {
	client   *Client
	options  FollowOptions
	request  *v1.FollowTaskLogsRequest
	assembly assembly
	waits    waiting
	silence  time.Duration

	stream grpc.ServerStreamingClient[v1.FollowTaskLogsResponse]
	cancel context.CancelCauseFunc

	messages     int  // of the current stream
	started      bool // any stream has brought a message
	broken       bool // the current or next stream continues one that broke
	lastError    *Error
	tokenRefused bool
	wholeEntries bool
	snapshotOnly bool
	resumeAt     time.Time
	giveUpAt     time.Time // zero: never
}

var errSilence = errors.New("the stream is silent")

func newFollow(client *Client, task string, options *FollowOptions) (*follow, error) {
	if options == nil {
		options = &FollowOptions{}
	}
	if options.Tail != nil && options.Cursor != "" {
		return nil, errors.New("tasklogs: give Tail or Cursor, not both")
	}
	f := &follow{
		client:  client,
		options: *options,
		request: &v1.FollowTaskLogsRequest{
			Task:       task,
			Source:     options.Source,
			Tail:       options.Tail,
			Cursor:     options.Cursor,
			Types:      options.Types,
			Deltas:     true,
			Compressed: true,
		},
		waits:   client.waits,
		silence: defaultProgressInterval + silenceMargin,
	}
	if interval := options.ProgressInterval; interval != 0 {
		f.request.ProgressInterval = durationpb.New(interval)
		f.silence = interval + silenceMargin
	}
	switch timeout := options.ConnectTimeout; {
	case timeout == 0:
		f.giveUpAt = time.Now().Add(defaultConnectTimeout)
	case timeout > 0:
		f.giveUpAt = time.Now().Add(timeout)
	}
	return f, nil
}

func (f *follow) next(ctx context.Context) (Event, error) {
	for {
		event, err := f.nextOfStream(ctx)
		if err != nil {
			f.dropStream()
			if err := f.prepareRetry(ctx, err); err != nil {
				return nil, err
			}
			continue
		}
		if _, isProgress := event.(Progress); event != nil && (!isProgress || f.options.Progress) {
			return event, nil
		}
	}
}

func (f *follow) nextOfStream(ctx context.Context) (Event, error) {
	if f.stream == nil {
		if err := f.open(ctx); err != nil {
			return nil, err
		}
	}
	message, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	return f.assembly.apply(message)
}

func (f *follow) open(ctx context.Context) error {
	if err := sleep(ctx, time.Until(f.resumeAt)); err != nil {
		return err
	}
	request := proto.CloneOf(f.request)
	if f.assembly.cursor != "" {
		request.Tail, request.Cursor = nil, f.assembly.cursor
	}
	if f.wholeEntries {
		request.Deltas, request.Compressed = false, false
	}
	if f.snapshotOnly {
		request.Source = SourceSnapshot
	}
	authorized, err := f.client.authorized(ctx)
	if err != nil {
		return err
	}
	f.assembly.streamOpened()
	f.messages = 0
	authorized, f.cancel = context.WithCancelCause(authorized)
	f.stream, err = f.client.logs.FollowTaskLogs(authorized, request)
	return err
}

func (f *follow) read(ctx context.Context) (*v1.FollowTaskLogsResponse, error) {
	// Keepalive tests the connection to the next proxy. This tests the way to the server, once the
	// stream has shown that there is one. Before, it is the limit of the connection.
	limit, limited := f.silence, f.messages > 0
	if !limited && !f.giveUpAt.IsZero() {
		limit, limited = time.Until(f.giveUpAt), true
	}
	if limited {
		cancel := f.cancel
		timer := time.AfterFunc(limit, func() { cancel(errSilence) })
		defer timer.Stop()
	}
	message, err := f.stream.Recv()
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		return nil, &Error{Code: codes.Unavailable, Message: "the server ended the stream"}
	case context.Cause(f.stream.Context()) == errSilence:
		if f.messages == 0 && f.lastError != nil {
			return nil, f.lastError // time is up: why the last attempt failed says more
		}
		message := fmt.Sprintf("the stream brought nothing for %s", limit.Round(time.Second))
		return nil, &Error{Code: codes.Unavailable, Message: message}
	default:
		return nil, err
	}
	f.messages++
	// The first message, the status, shows that the server responds, not that it can continue.
	if f.messages > 1 {
		f.waits.reset()
		return message, nil
	}
	f.tokenRefused, f.started, f.giveUpAt = false, true, time.Time{}
	f.lastError = nil
	if f.broken && f.options.OnReconnect != nil {
		f.options.OnReconnect(nil)
	}
	f.broken = false
	return message, nil
}

// prepareRetry decides when and how the next stream is opened. It returns the error that ends the
// follow if there will be none.
func (f *follow) prepareRetry(ctx context.Context, err error) error {
	failure := f.failureOf(ctx, err)
	if failure == nil {
		return err
	}
	if ctx.Err() != nil || !f.mayGoOn(failure) {
		return failure
	}
	now := time.Now()
	if f.started && !f.broken && f.options.ReconnectTimeout > 0 {
		f.giveUpAt = now.Add(f.options.ReconnectTimeout)
	}
	delay := f.waits.next(failure)
	if !f.giveUpAt.IsZero() && now.Add(delay).After(f.giveUpAt) {
		return failure
	}
	// The next stream sends whole entries as they are: nothing that could fail again.
	var wrong *wrongDelta
	f.wholeEntries = errors.As(err, &wrong)
	// The status does not allow a new follow, but does not end a running one either.
	f.snapshotOnly = failure.Reason == ErrTaskStateConflict
	f.broken, f.lastError = true, failure
	f.resumeAt = now.Add(delay)
	if f.options.OnReconnect != nil {
		f.options.OnReconnect(&Reconnecting{Err: failure, Attempt: f.waits.failures, Delay: delay})
	}
	return nil
}

// failureOf returns err as an *Error; nil if it is the caller's own.
func (f *follow) failureOf(ctx context.Context, err error) *Error {
	var failure *Error
	var wrong *wrongDelta
	var token *tokenFailed
	switch {
	case errors.As(err, &failure):
		return failure
	case errors.As(err, &wrong):
		return &Error{Code: codes.Internal, Message: wrong.why, causes: []error{err}}
	case errors.As(err, &token):
		if !f.started {
			return nil
		}
		// A source that fails once must not end a follow that runs.
		return &Error{Code: codes.Unavailable, Message: err.Error(), causes: []error{err}}
	case ctx.Err() != nil && err == context.Cause(ctx):
		return nil
	default:
		return parsed(ctx, err)
	}
}

func (f *follow) mayGoOn(failure *Error) bool {
	if f.started && isFromProxy(failure) {
		return true
	}
	if failure.Code == codes.Unauthenticated {
		asked := f.tokenRefused
		f.tokenRefused = true
		return f.client.renews && !asked
	}
	_, asksToWait := failure.RetryAfter()
	if !f.started {
		return failure.Code == codes.Unavailable || asksToWait
	}
	switch failure.Code {
	case codes.FailedPrecondition:
		return failure.Reason == ErrTaskStateConflict && (!f.snapshotOnly || f.messages > 0)
	case codes.ResourceExhausted:
		return asksToWait
	case codes.Unavailable, codes.Aborted, codes.Internal,
		// The codes of streams whose server or proxy died.
		codes.Unknown, codes.Canceled, codes.DeadlineExceeded:
		return true
	}
	return false
}

// gRPC turns such an answer into a status: 401 into Unauthenticated, 404 into Unimplemented.
var httpAnswer = regexp.MustCompile(`unexpected HTTP status code received from server: \d{3}`)

// isFromProxy reports whether a proxy refused the stream: only the server's own word is final.
func isFromProxy(failure *Error) bool {
	if failure.Reason != "" {
		return false
	}
	switch failure.Code {
	case codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.Unimplemented:
		return true
	}
	return httpAnswer.MatchString(failure.Message)
}

func (f *follow) dropStream() {
	if f.cancel != nil {
		f.cancel(nil)
	}
	f.stream, f.cancel = nil, nil
}
