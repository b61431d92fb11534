package tasklogs

import (
	"time"

	v1 "tasklogs/clients/go/tasklogs/v1"
)

// Entry is one message of a task's conversation.
type Entry struct {
	// ID is the id of the message. Ids increase within an epoch, from 0, with gaps.
	ID int32
	// Type says who or what the entry is from.
	Type EntryType
	// Content is valid UTF-8.
	Content string
	// Time is when the entry was written or last changed, by the task app (UTC).
	Time time.Time
	// Revision is the task's revision at which the entry last changed.
	Revision int64
	// DroppedBytes is how many bytes were removed from the front of Content, because it was longer
	// than 1 MiB.
	DroppedBytes int64
	// SourceID is the message's id in the source that the agent reads; empty if it has no such ids.
	SourceID string
	// Name is the tool's name, for ToolCall and ToolResult.
	Name string
	// CallID joins a tool's result to its call: both have the same.
	CallID string
}

func entryOf(message *v1.TaskLogEntry) Entry {
	return Entry{
		ID:           message.GetId(),
		Type:         message.GetType(),
		Content:      message.GetContent(),
		Time:         message.GetTime().AsTime(),
		Revision:     message.GetRevision(),
		DroppedBytes: message.GetDroppedBytes(),
		SourceID:     message.GetSourceId(),
		Name:         message.GetName(),
		CallID:       message.GetCallId(),
	}
}
