package tasklogs

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"

	v1 "tasklogs/clients/go/tasklogs/v1"
)

const maxExpandedBytes = 256 * 1024

// wrongDelta says that a delta does not fit what its stream sent, or that a compressed message
// cannot be expanded. So the stream cannot be trusted.
type wrongDelta struct{ why string }

func (w *wrongDelta) Error() string { return w.why }

// tail is the last entry that was yielded: the only one that may still change.
type tail struct {
	epoch   int32
	entry   Entry
	content content
	// sentByStream is whether the current stream has sent it, so that deltas apply to it.
	sentByStream bool
}

// assembly turns the messages of a follow's streams into events: it applies deltas, and leaves out
// what it has yielded before, over all streams.
type assembly struct {
	cursor   string // that of the last message
	status   *v1.StatusChanged
	caughtUp bool
	revision int64 // revisions only increase, so this number is enough to recognize a repeat
	tail     *tail
}

// streamOpened says that a new stream begins. Its deltas do not build on what an earlier one sent.
func (a *assembly) streamOpened() {
	if a.tail != nil {
		a.tail.sentByStream = false
	}
}

// apply returns the event of message, nil if it has nothing new, or a *wrongDelta. After an error
// the assembly is as it was.
func (a *assembly) apply(message *v1.FollowTaskLogsResponse) (Event, error) {
	cursor, err := a.cursorOf(message)
	if err != nil {
		return nil, err
	}
	inside, err := expanded(message)
	if err != nil {
		return nil, err
	}
	event, err := a.event(inside, position{cursor})
	if err != nil {
		return nil, err
	}
	a.cursor = cursor
	return event, nil
}

func (a *assembly) cursorOf(message *v1.FollowTaskLogsResponse) (string, error) {
	end := message.GetCursorEnd()
	if message.GetCursor() != "" {
		return message.GetCursor(), nil
	}
	if len(end) > len(a.cursor) {
		return "", &wrongDelta{"a cursor is only an end, and none came before"}
	}
	return a.cursor[:len(a.cursor)-len(end)] + end, nil
}

func (a *assembly) event(message *v1.FollowTaskLogsResponse, at position) (Event, error) {
	switch event := message.GetEvent().(type) {
	case *v1.FollowTaskLogsResponse_Status:
		if a.status != nil && sameStatus(a.status, event.Status) {
			return nil, nil
		}
		a.status = event.Status
		return StatusChanged{
			position: at,
			Status:   event.Status.GetStatus(),
			Detail:   detailOf(event.Status.GetStatusDetail()),
			TaskID:   event.Status.GetTaskId(),
		}, nil
	case *v1.FollowTaskLogsResponse_Entries:
		var changes []EntryChange
		for _, entry := range event.Entries.GetLogs() {
			if change, isNew := a.whole(event.Entries.GetEpoch(), entry); isNew {
				changes = append(changes, change)
			}
		}
		if changes == nil {
			return nil, nil
		}
		return EntriesChanged{at, event.Entries.GetEpoch(), changes}, nil
	case *v1.FollowTaskLogsResponse_Delta:
		return a.delta(event.Delta, at)
	case *v1.FollowTaskLogsResponse_EntryWithdrawn:
		withdrawn := event.EntryWithdrawn
		if !a.isNew(withdrawn.GetRevision()) {
			return nil, nil
		}
		a.tail = nil
		return EntryWithdrawn{
			at, withdrawn.GetEpoch(), withdrawn.GetId(), withdrawn.GetRevision(),
		}, nil
	case *v1.FollowTaskLogsResponse_EpochStarted:
		started := event.EpochStarted
		if !a.isNew(started.GetRevision()) {
			return nil, nil
		}
		a.tail = nil
		return EpochStarted{at, started.GetEpoch(), started.GetRevision()}, nil
	case *v1.FollowTaskLogsResponse_CaughtUp:
		if a.caughtUp {
			return nil, nil
		}
		a.caughtUp = true
		return CaughtUp{at}, nil
	case *v1.FollowTaskLogsResponse_Progress:
		return Progress{at}, nil
	default:
		// An event of a newer server. Its cursor is used all the same.
		return nil, nil
	}
}

func sameStatus(a, b *v1.StatusChanged) bool {
	return a.GetStatus() == b.GetStatus() && proto.Equal(a.GetStatusDetail(), b.GetStatusDetail())
}

func (a *assembly) whole(epoch int32, message *v1.TaskLogEntry) (EntryChange, bool) {
	before := a.tailWith(epoch, message.GetId())
	if !a.isNew(message.GetRevision()) {
		// It is a repeat, but the next delta may build on it.
		if before != nil && before.entry.Revision == message.GetRevision() &&
			before.entry.Content == message.GetContent() {
			before.sentByStream = true
		}
		return EntryChange{}, false
	}
	entry := entryOf(message)
	a.tail = &tail{epoch, entry, contentOf(entry.Content), true}
	if before == nil {
		return EntryChange{Entry: entry, Appends: true, Appended: entry.Content}, true
	}
	return changeOf(before.entry, entry), true
}

func (a *assembly) delta(message *v1.EntryDelta, at position) (Event, error) {
	if message.GetRevision() <= a.revision {
		return nil, nil
	}
	wrong := func(format string, values ...any) (Event, error) {
		return nil, &wrongDelta{
			fmt.Sprintf("a delta for entry %d ", message.GetId()) + fmt.Sprintf(format, values...),
		}
	}
	tail := a.tailWith(message.GetEpoch(), message.GetId())
	if tail == nil || !tail.sentByStream || tail.entry.Revision != message.GetBaseRevision() {
		return wrong("of epoch %d builds on revision %d, which is not what this stream sent last",
			message.GetEpoch(), message.GetBaseRevision())
	}
	if message.GetContent() == nil {
		return wrong("has a form that is not known here")
	}
	next, appends, err := tail.content.patched(message.GetContent())
	if err != nil {
		return wrong("%v", err)
	}
	before := tail.entry
	entry := before
	entry.Revision = message.GetRevision()
	entry.Content = string(next.data)
	if message.GetTime() != nil {
		entry.Time = message.GetTime().AsTime()
	}
	a.revision = entry.Revision
	tail.entry, tail.content = entry, next
	change := EntryChange{Entry: entry, Replaces: before.Revision}
	if appends {
		change.KeptBytes = len(before.Content)
		change.Appends, change.Appended = true, entry.Content[len(before.Content):]
	} else {
		change = changeOf(before, entry)
	}
	return EntriesChanged{at, message.GetEpoch(), []EntryChange{change}}, nil
}

func (a *assembly) tailWith(epoch, id int32) *tail {
	if a.tail == nil || a.tail.epoch != epoch || a.tail.entry.ID != id {
		return nil
	}
	return a.tail
}

func (a *assembly) isNew(revision int64) bool {
	if revision <= a.revision {
		return false
	}
	a.revision = revision
	return true
}

// changeOf returns how entry differs from what was yielded of it before.
func changeOf(before, entry Entry) EntryChange {
	change := EntryChange{Entry: entry, Replaces: before.Revision}
	lost := entry.DroppedBytes - before.DroppedBytes
	if 0 <= lost && lost <= int64(len(before.Content)) && isBoundary(before.Content, int(lost)) {
		// An entry of more than 1 MiB loses its front, but its growth may still be an append.
		stays := before.Content[lost:]
		if strings.HasPrefix(entry.Content, stays) {
			if lost == 0 {
				change.KeptBytes = len(before.Content)
			}
			change.Appends, change.Appended = true, entry.Content[len(stays):]
			return change
		}
	}
	change.KeptBytes = commonText(before.Content, entry.Content)
	return change
}

// expanded returns the message that message has inside, or message.
func expanded(message *v1.FollowTaskLogsResponse) (*v1.FollowTaskLogsResponse, error) {
	compressed := message.GetCompressed()
	if compressed == nil {
		return message, nil
	}
	size := compressed.GetSizeBytes()
	if size < 1 || size > maxExpandedBytes {
		return nil, &wrongDelta{fmt.Sprintf("a compressed message claims %d bytes", size)}
	}
	packed := bytes.NewReader(compressed.GetZlib())
	reader, err := zlib.NewReader(packed)
	if err != nil {
		return nil, &wrongDelta{"a compressed message cannot be decompressed: " + err.Error()}
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(reader, data); err != nil {
		return nil, &wrongDelta{"a compressed message is shorter than it claims: " + err.Error()}
	}
	if more, err := reader.Read(make([]byte, 1)); more != 0 || err != io.EOF || packed.Len() != 0 {
		return nil, &wrongDelta{"a compressed message is longer than it claims, or is cut off"}
	}
	inside := &v1.FollowTaskLogsResponse{}
	if err := proto.Unmarshal(data, inside); err != nil {
		return nil, &wrongDelta{"a compressed message has no message inside: " + err.Error()}
	}
	if inside.GetCompressed() != nil {
		return nil, &wrongDelta{"a compressed message has a compressed message inside"}
	}
	return inside, nil
}
