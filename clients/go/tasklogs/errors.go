package tasklogs

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason says why a call failed. It is stable, for programs:
//
//	if errors.Is(err, tasklogs.ErrTaskNotFound) { ... }
type Reason string

// Error makes a Reason a target of [errors.Is].
func (r Reason) Error() string { return string(r) }

// FieldViolation is an invalid field of the request, and why it is invalid.
type FieldViolation struct {
	Field       string
	Description string
}

// QuotaViolation is a limit that was exceeded, and its subject.
type QuotaViolation struct {
	Subject     string
	Description string
}

// Error is a call that failed. What the server did not send is empty.
type Error struct {
	Code    codes.Code
	Message string
	// Reason is empty if no TaskLogs server said this, but a proxy, the network or gRPC itself.
	Reason Reason
	// Metadata depends on the reason: docs/api.md lists it.
	Metadata map[string]string
	// Violations names the invalid fields of the request.
	Violations []FieldViolation
	// QuotaViolations names the limits that were exceeded.
	QuotaViolations []QuotaViolation
	// RequestID names the call in the server's log.
	RequestID string

	retryAfter *time.Duration
	causes     []error
}

func (e *Error) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("%s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%s: %s (%s)", e.Code, e.Message, string(e.Reason))
}

// Is reports whether target is the reason of the error.
func (e *Error) Is(target error) bool {
	reason, ok := target.(Reason)
	return ok && reason != "" && reason == e.Reason
}

// Unwrap returns the error of gRPC, and that of the caller's context if it ended the call.
func (e *Error) Unwrap() []error { return e.causes }

// GRPCStatus returns the status as gRPC has it, for [status.FromError].
func (e *Error) GRPCStatus() *status.Status {
	for _, cause := range e.causes {
		if found, ok := status.FromError(cause); ok {
			return found
		}
	}
	return status.New(e.Code, e.Message)
}

// RetryAfter returns how long the server asks to wait before a retry: an earlier one would fail,
// too. It is false if the server did not say.
func (e *Error) RetryAfter() (time.Duration, bool) {
	if e.retryAfter == nil {
		return 0, false
	}
	return *e.retryAfter, true
}

// Retry says whether the same call may succeed if it is made again.
func (e *Error) Retry() Retry {
	if found, ok := retries[e.Reason]; ok {
		return found
	}
	if e.retryAfter != nil {
		return RetryAfter
	}
	return RetryUnknown
}

// OldestCursor returns the cursor of the oldest entry that is still stored, for the reason
// ErrCursorExpired. What was before it is lost.
func (e *Error) OldestCursor() string { return e.Metadata["oldest_cursor"] }

// Retry says whether the same call may succeed if it is made again.
type Retry int

// What an error says about a retry.
const (
	// RetryUnknown: this version does not know the reason, or there is none.
	RetryUnknown Retry = iota
	// RetryNo: only after something else has changed: the request, the credentials, or the task.
	RetryNo
	// RetryNow: at once. It has changed nothing yet. Wait longer each time it fails again.
	RetryNow
	// RetryAfter: after the time that [Error.RetryAfter] returns.
	RetryAfter
)

// parsed returns err, the error of a call that was made with ctx, as an *Error.
func parsed(ctx context.Context, err error) *Error {
	found, _ := status.FromError(err)
	parsed := &Error{Code: found.Code(), Message: found.Message(), causes: []error{err}}
	if ctx.Err() != nil {
		parsed.causes = append(parsed.causes, context.Cause(ctx))
	}
	for _, detail := range found.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain { // a proxy may add details of another domain
				parsed.Reason = Reason(detail.GetReason())
				parsed.Metadata = detail.GetMetadata()
			}
		case *errdetails.BadRequest:
			for _, one := range detail.GetFieldViolations() {
				parsed.Violations = append(
					parsed.Violations,
					FieldViolation{Field: one.GetField(), Description: one.GetDescription()},
				)
			}
		case *errdetails.QuotaFailure:
			for _, one := range detail.GetViolations() {
				parsed.QuotaViolations = append(
					parsed.QuotaViolations,
					QuotaViolation{Subject: one.GetSubject(), Description: one.GetDescription()},
				)
			}
		case *errdetails.RetryInfo:
			after := detail.GetRetryDelay().AsDuration()
			parsed.retryAfter = &after
		case *errdetails.RequestInfo:
			parsed.RequestID = detail.GetRequestId()
		}
	}
	return parsed
}
