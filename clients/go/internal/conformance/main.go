// Command conformance follows logs for tests/conformance, which describes what it reads and prints.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"tasklogs/clients/go/tasklogs"
)

type order struct {
	Target      string   `json:"target"`
	Task        string   `json:"task"`
	Cursor      string   `json:"cursor"`
	Tail        *int32   `json:"tail"`
	Tokens      []string `json:"tokens"`
	Progress    bool     `json:"progress"`
	UntilStatus string   `json:"until_status"`
	UntilEvents int      `json:"until_events"`
	FirstWaitMS int      `json:"first_wait_ms"`
	MostWaitMS  int      `json:"most_wait_ms"`
}

type line map[string]any

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<20)
	output := json.NewEncoder(os.Stdout)
	output.SetEscapeHTML(false)
	for input.Scan() {
		var order order
		if err := json.Unmarshal(input.Bytes(), &order); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		follow(order, func(l line) {
			if err := output.Encode(l); err != nil {
				os.Exit(1)
			}
		})
	}
}

func follow(order order, say func(line)) {
	options := []tasklogs.Option{tasklogs.WithWaits(
		time.Duration(order.FirstWaitMS)*time.Millisecond,
		time.Duration(order.MostWaitMS)*time.Millisecond,
	)}
	if len(order.Tokens) > 0 {
		asked := 0
		options = append(options, tasklogs.WithTokenSource(func(context.Context) (string, error) {
			asked++
			return order.Tokens[min(asked, len(order.Tokens))-1], nil
		}))
	}
	client, err := tasklogs.NewClient(order.Target, options...)
	if err != nil {
		say(line{"event": "error", "message": err.Error()})
		return
	}
	defer client.Close()
	count := 0
	events := client.Follow(context.Background(), order.Task, &tasklogs.FollowOptions{
		Cursor:   order.Cursor,
		Tail:     order.Tail,
		Progress: order.Progress,
		OnReconnect: func(r *tasklogs.Reconnecting) {
			if r == nil {
				say(line{"event": "reconnected"})
				return
			}
			say(line{"event": "reconnecting", "attempt": r.Attempt, "delay_ms": r.Delay.Milliseconds()})
		},
	})
	for event, err := range events {
		if err != nil {
			say(errorLine(err))
			return
		}
		say(eventLine(event))
		count++
		status, isStatus := event.(tasklogs.StatusChanged)
		if isStatus && order.UntilStatus != "" && statusName(status.Status) == order.UntilStatus {
			break
		}
		if count == order.UntilEvents {
			break
		}
	}
	say(line{"event": "left"})
}

func errorLine(err error) line {
	l := line{"event": "error", "message": err.Error()}
	var failure *tasklogs.Error
	if errors.As(err, &failure) {
		l["code"] = failure.Code
		l["reason"] = string(failure.Reason)
		l["oldest_cursor"] = failure.OldestCursor()
	}
	return l
}

func eventLine(event tasklogs.Event) line {
	l := line{"cursor": event.Cursor()}
	switch event := event.(type) {
	case tasklogs.StatusChanged:
		l["event"], l["status"], l["task_id"] = "status", statusName(event.Status), event.TaskID
	case tasklogs.EntriesChanged:
		var changes []line
		for _, change := range event.Changes {
			one := line{
				"id":            change.Entry.ID,
				"type":          change.Entry.Type,
				"content":       change.Entry.Content,
				"time_ns":       change.Entry.Time.UnixNano(),
				"revision":      change.Entry.Revision,
				"dropped_bytes": change.Entry.DroppedBytes,
				"source_id":     change.Entry.SourceID,
				"name":          change.Entry.Name,
				"call_id":       change.Entry.CallID,
				"replaces":      change.Replaces,
				"kept_bytes":    change.KeptBytes,
				"appended":      nil,
			}
			if change.Appends {
				one["appended"] = change.Appended
			}
			changes = append(changes, one)
		}
		l["event"], l["epoch"], l["changes"] = "entries", event.Epoch, changes
	case tasklogs.EntryWithdrawn:
		l["event"], l["epoch"], l["id"] = "withdrawn", event.Epoch, event.ID
		l["revision"] = event.Revision
	case tasklogs.EpochStarted:
		l["event"], l["epoch"], l["revision"] = "epoch", event.Epoch, event.Revision
	case tasklogs.CaughtUp:
		l["event"] = "caught_up"
	case tasklogs.Progress:
		l["event"] = "progress"
	}
	return l
}

func statusName(status tasklogs.Status) string {
	return strings.TrimPrefix(status.String(), "TASK_STATUS_")
}
