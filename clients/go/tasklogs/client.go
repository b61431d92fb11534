package tasklogs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	v1 "tasklogs/clients/go/tasklogs/v1"
)

const (
	maxMessageBytes  = 4 * 1024 * 1024
	defaultTimeout   = 30 * time.Second
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	firstWait        = 200 * time.Millisecond
	mostWait         = 10 * time.Second
)

// TokenSource returns the bearer token of a call. It is called before each call, and once more if
// the server refused its token.
type TokenSource func(ctx context.Context) (string, error)

// Client makes the calls of a TaskLogs server. Many goroutines may use one at the same time.
type Client struct {
	closeConn func() error
	open      context.Context // ends with Close
	end       context.CancelFunc
	token     TokenSource
	renews    bool
	timeout   time.Duration
	waits     waiting
	tasks     v1.TasksClient
	logs      v1.TaskLogsClient
}

// ErrClosed is the error of calls and follows that run when [Client.Close] is called, and of later
// ones.
var ErrClosed = errors.New("tasklogs: the client is closed")

type settings struct {
	tls         *tls.Config
	token       TokenSource
	renews      bool
	timeout     time.Duration
	waits       waiting
	conn        grpc.ClientConnInterface
	dialOptions []grpc.DialOption
}

// Option is a setting of a [Client].
type Option func(*settings)

// WithTLS encrypts the connection. Without it, everything is sent in plain text. To renew a client
// certificate while the client is open, set [tls.Config.GetClientCertificate].
func WithTLS(config *tls.Config) Option {
	return func(s *settings) { s.tls = config }
}

// WithToken sends a bearer token with each call.
func WithToken(token string) Option {
	return func(s *settings) {
		s.token = func(context.Context) (string, error) { return token, nil }
		s.renews = false
	}
}

// WithTokenSource sends the bearer token that source returns with each call.
func WithTokenSource(source TokenSource) Option {
	return func(s *settings) { s.token, s.renews = source, true }
}

// WithTimeout limits each call with a single response, retries included. The default is 30 s;
// 0: no limit but that of the call's context.
func WithTimeout(timeout time.Duration) Option {
	return func(s *settings) { s.timeout = timeout }
}

// WithWaits sets the waits between attempts where the server does not say how long to wait: the
// n-th in a row is first x 2^(n-1), at most most, less a random part up to half. The default is
// 200 ms and 10 s.
func WithWaits(first, most time.Duration) Option {
	return func(s *settings) { s.waits = waiting{first: first, most: most} }
}

// WithDialOptions adds options of gRPC, for instance interceptors.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dialOptions = append(s.dialOptions, options...) }
}

// WithConn uses a connection of the caller's, which [Client.Close] leaves open. WithTLS and
// WithDialOptions have no effect then.
func WithConn(conn grpc.ClientConnInterface) Option {
	return func(s *settings) { s.conn = conn }
}

// NewClient returns a client of the server at target, for instance "host:50051", or any other
// target of gRPC. It connects when the first call is made.
func NewClient(target string, options ...Option) (*Client, error) {
	s := settings{timeout: defaultTimeout, waits: waiting{first: firstWait, most: mostWait}}
	for _, option := range options {
		option(&s)
	}
	conn, closeConn := s.conn, func() error { return nil }
	if conn == nil {
		own, err := grpc.NewClient(target, dialOptions(s)...)
		if err != nil {
			return nil, fmt.Errorf("tasklogs: %w", err)
		}
		conn, closeConn = own, own.Close
	}
	open, end := context.WithCancel(context.Background())
	return &Client{
		closeConn: closeConn,
		open:      open,
		end:       end,
		token:     s.token,
		renews:    s.renews,
		timeout:   s.timeout,
		waits:     s.waits,
		tasks:     v1.NewTasksClient(conn),
		logs:      v1.NewTaskLogsClient(conn),
	}, nil
}

func dialOptions(s settings) []grpc.DialOption {
	transport := insecure.NewCredentials()
	if s.tls != nil {
		transport = credentials.NewTLS(s.tls)
	}
	// gRPC's default ceiling is two minutes: too long once the server is back.
	waits := backoff.Config{
		BaseDelay: 500 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: mostWait,
	}
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("tasklogs-go/" + Version),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		// Pings are sent only while a call runs, so an idle connection costs nothing.
		grpc.WithKeepaliveParams(
			keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout},
		),
		grpc.WithConnectParams(
			grpc.ConnectParams{Backoff: waits, MinConnectTimeout: mostWait},
		),
	}, s.dialOptions...)
}

// Close ends every call and follow, and closes the connection. Closing twice does nothing.
func (c *Client) Close() error {
	if c.open.Err() != nil {
		return nil
	}
	c.end()
	return c.closeConn()
}

// whileOpen returns a context that ends with ctx, and with the client, then with the cause
// ErrClosed.
func (c *Client) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	bound, cancel := context.WithCancelCause(ctx)
	if c.open.Err() != nil {
		cancel(ErrClosed)
	}
	stop := context.AfterFunc(c.open, func() { cancel(ErrClosed) })
	return bound, func() {
		stop()
		cancel(nil)
	}
}

// authorized returns ctx with the token of a call. White space around a token is removed: files end
// with a newline.
func (c *Client) authorized(ctx context.Context) (context.Context, error) {
	if c.token == nil {
		return ctx, nil
	}
	token, err := c.token(ctx)
	if err != nil {
		return nil, &tokenFailed{err}
	}
	return metadata.AppendToOutgoingContext(
		ctx, "authorization", "Bearer "+strings.TrimSpace(token),
	), nil
}

// tokenFailed says that the caller's TokenSource returned an error.
type tokenFailed struct{ err error }

func (t *tokenFailed) Error() string {
	return "tasklogs: the token source failed: " + t.err.Error()
}

func (t *tokenFailed) Unwrap() error { return t.err }

// retried says whether a call may be repeated where its error says so.
type retried bool

const (
	// repeatable: the call reads, or has the same effect if it is made again.
	repeatable retried = true
	once       retried = false
)

// call makes a call with a single response. A repeatable one is made again where the error says so,
// within the time-out and the deadline of ctx. If the server refuses a token that a TokenSource
// returned, the source is called once more.
func call[Request, Response any](
	ctx context.Context,
	c *Client,
	may retried,
	method func(context.Context, Request, ...grpc.CallOption) (Response, error),
	request Request,
) (Response, error) {
	var none Response
	ctx, stop := c.whileOpen(ctx)
	defer stop()
	if c.timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		ctx = limited
	}
	waits := c.waits
	refused := false
	for {
		authorized, err := c.authorized(ctx)
		if err != nil {
			return none, err
		}
		response, err := method(authorized, request)
		if err == nil {
			return response, nil
		}
		failure := parsed(ctx, err)
		switch {
		case failure.Code == codes.Unauthenticated && c.renews && !refused:
			refused = true
			continue
		case may != repeatable || !mayRepeat(failure) || waits.failures >= mostRetries:
			return none, failure
		}
		wait := waits.next(failure)
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return none, failure // the caller learns the cause, not only that time is up
		}
		if sleep(ctx, wait) != nil {
			return none, parsed(ctx, err)
		}
	}
}

const mostRetries = 5

// mayRepeat reports whether the error says that the same call may succeed if it is made again.
func mayRepeat(failure *Error) bool {
	return failure.Retry() == RetryNow || failure.Retry() == RetryAfter
}
