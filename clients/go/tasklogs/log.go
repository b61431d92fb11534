package tasklogs

import (
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v1 "tasklogs/clients/go/tasklogs/v1"
)

// ReadOptions says what [Client.Get] reads.
type ReadOptions struct {
	// Source: only the live log, or only the stored one. The default is what the status decides.
	Source Source
	// Tail: only the last N entries ([Last]); 0 returns only the status. nil: all.
	Tail *int32
	// Types: only entries of these types; Tail counts these alone. Empty: all types.
	Types []EntryType
	// Epoch: an earlier conversation, numbered from 1. 0: the current one.
	Epoch int32
	// MaxStaleness: accept a log that was brought up to date at most this long ago.
	MaxStaleness time.Duration
	// PageSize is the most entries of a page, 0: 1000. A page ends at about 1 MB in any case.
	PageSize int32
	// PageToken: begin with this page, [Log.NextPageToken] of an earlier read with the same
	// options.
	PageToken string
}

// Last returns n for the field Tail of the options.
func Last(n int32) *int32 { return &n }

// Log is the result of one read: the first page, and how to read on.
type Log struct {
	// TaskID is the task's UUID. After a task is deleted, another one may get its name.
	TaskID string
	// Snapshot is true for the stored log, of SnapshotAt. False: it was brought up to date first.
	Snapshot bool
	// SnapshotAt is when the log was up to date (UTC); zero if nothing was ever stored.
	SnapshotAt time.Time
	Status     Status
	// Epoch is that of the entries, from 1; 0 if nothing was ever stored.
	Epoch int32
	// Revision grows with each committed change of the task.
	Revision int64
	// FirstID is the id of the oldest stored entry of the epoch; nil if it has none.
	FirstID *int32
	// Cursor follows the task from here: see [FollowOptions].
	Cursor string
	// Page has the entries of the first page, by id. A page may be empty although there is a next.
	Page []Entry
	// NextPageToken is empty if the first page is the last.
	NextPageToken string

	next func(ctx context.Context, token string) (*v1.GetTaskLogsResponse, error)
}

// Get reads a task's log: the live log if the task runs, else the stored one. options may be nil.
//
// The error is ErrTaskNotFound; ErrTaskStateConflict if the task's status allows neither;
// ErrAgentUnreachable or ErrTaskAppError if a live read failed; ErrCursorExpired if the epoch was
// evicted.
func (c *Client) Get(ctx context.Context, task string, options *ReadOptions) (*Log, error) {
	if options == nil {
		options = &ReadOptions{}
	}
	request := &v1.GetTaskLogsRequest{
		Task:     task,
		Source:   options.Source,
		Tail:     options.Tail,
		PageSize: options.PageSize,
		Types:    options.Types,
	}
	if options.Epoch != 0 {
		request.Epoch = &options.Epoch
	}
	if options.MaxStaleness > 0 {
		request.MaxStaleness = durationpb.New(options.MaxStaleness)
	}
	next := func(ctx context.Context, token string) (*v1.GetTaskLogsResponse, error) {
		request.PageToken = token
		return call(ctx, c, repeatable, c.logs.GetTaskLogs, request)
	}
	first, err := next(ctx, options.PageToken)
	if err != nil {
		return nil, err
	}
	log := &Log{
		TaskID:        first.GetTaskId(),
		Snapshot:      first.GetSnapshot(),
		Status:        first.GetStatus(),
		Epoch:         first.GetEpoch(),
		Revision:      first.GetRevision(),
		FirstID:       first.FirstId,
		Cursor:        first.GetCursor(),
		Page:          entriesOf(first),
		NextPageToken: first.GetNextPageToken(),
		next:          next,
	}
	if first.GetSnapshotAt() != nil {
		log.SnapshotAt = first.GetSnapshotAt().AsTime()
	}
	return log, nil
}

func entriesOf(page *v1.GetTaskLogsResponse) []Entry {
	entries := make([]Entry, 0, len(page.GetLogs()))
	for _, message := range page.GetLogs() {
		entries = append(entries, entryOf(message))
	}
	return entries
}

// Entries yields the entries of all pages, by id. Each page is requested when it is needed. After
// an error nothing more is yielded. Use one iteration of a Log at a time.
func (l *Log) Entries(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		entries, token := l.Page, l.NextPageToken
		for {
			for _, entry := range entries {
				if !yield(entry, nil) {
					return
				}
			}
			if token == "" {
				return
			}
			page, err := l.next(ctx, token)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			entries, token = entriesOf(page), page.GetNextPageToken()
		}
	}
}

// All returns all entries, by id.
func (l *Log) All(ctx context.Context) ([]Entry, error) {
	var all []Entry
	for entry, err := range l.Entries(ctx) {
		if err != nil {
			return nil, err
		}
		all = append(all, entry)
	}
	return all, nil
}
