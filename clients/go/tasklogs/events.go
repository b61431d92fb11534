package tasklogs

import "time"

// Event is what a follow yields: a [StatusChanged], [EntriesChanged], [EntryWithdrawn],
// [EpochStarted], [CaughtUp] or [Progress]. Later versions may add events, so a type switch must
// ignore those that it does not know.
type Event interface {
	// Cursor continues after this event: see [FollowOptions].
	Cursor() string
}

type position struct{ cursor string }

func (p position) Cursor() string { return p.cursor }

// StatusChanged is the task's status: the first event of a follow, and one for each change.
type StatusChanged struct {
	position
	Status Status
	Detail StatusDetail
	// TaskID is the task's UUID in the first event, else empty. Names are reused, UUIDs are not.
	TaskID string
}

// EntriesChanged has entries that are new or have changed, in the order of their revisions. The
// same id again within an epoch replaces what was yielded before.
type EntriesChanged struct {
	position
	Epoch   int32
	Changes []EntryChange
}

// EntryChange is an entry that is new to the follow, or has changed since the follow yielded it.
type EntryChange struct {
	// Entry is always the whole entry in its new state.
	Entry Entry
	// Replaces is the revision of the entry that the follow yielded before; 0: it is new.
	Replaces int64
	// KeptBytes is how many leading bytes of the content that was yielded before are unchanged.
	KeptBytes int
	// Appends is whether the content that was yielded before only grew, by Appended.
	Appends bool
	// Appended is the text to append to the content that was yielded before; for a new entry, all
	// of its content. It is empty if some of that content has changed: then Appends is false.
	Appended string
}

// EntryWithdrawn says that an entry is no longer part of the conversation.
type EntryWithdrawn struct {
	position
	Epoch    int32
	ID       int32
	Revision int64
}

// EpochStarted says that a new conversation begins, with ids from 0. Earlier epochs can still be
// read.
type EpochStarted struct {
	position
	Epoch    int32
	Revision int64
}

// CaughtUp says that all entries that existed when the follow began have been yielded. It comes
// once per follow.
type CaughtUp struct{ position }

// Progress says that nothing is new: everything up to its cursor has been yielded.
type Progress struct{ position }

// Reconnecting says that the stream of a follow broke: it reconnects after Delay.
type Reconnecting struct {
	Err *Error
	// Attempt is the number of failures in a row, from 1.
	Attempt int
	Delay   time.Duration
}
