// Package tasklogs is the client of TaskLogs, the service that keeps the conversation logs of the
// tasks of AI agents.
//
//	client, err := tasklogs.NewClient("127.0.0.1:50051")
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	for event, err := range client.Follow(ctx, "local/demo", nil) {
//		if err != nil {
//			return err
//		}
//		if changed, ok := event.(tasklogs.EntriesChanged); ok {
//			for _, change := range changed.Changes {
//				fmt.Println(change.Entry.Content)
//			}
//		}
//	}
//
// In every call, task is the UUID of a task or its "owner/name".
//
// A call that fails returns an [*Error]. Test it with [errors.Is] and a [Reason], or take its
// fields with [errors.As]. If the caller's context ended the call, errors.Is also finds
// [context.Canceled] or [context.DeadlineExceeded].
package tasklogs
